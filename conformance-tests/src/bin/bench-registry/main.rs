//! What the registry's plugin costs a mosquitto: processor time per connection and per message, and memory per client,
//! beside the same broker without it.
//!
//! usage: bench-registry PLUGIN [--quick | --publish]. PLUGIN is a release build of libkeyrivet_mosquitto.so.

mod broker;
mod mqtt;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use broker::{Broker, Fleet};

/// Goals of the design: microseconds on top of a bare broker's connection.
const CONNECT_GOALS: [(&str, f64); 2] = [("RS256", 60.0), ("ES256", 90.0)];
/// And the part of a bare broker's messages that must remain.
const PUBLISH_GOAL: f64 = 0.95;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(plugin) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: bench-registry PLUGIN [--quick]");
        return ExitCode::from(2);
    };
    let option = arguments.next().unwrap_or_default();
    let done = match option.as_str() {
        "--publish" => publishes(&Fleet::new(1), &plugin, 21, false),
        option => measure(&plugin, option == "--quick"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(plugin: &std::path::Path, quick: bool) -> std::io::Result<()> {
    let (devices, rounds, clients) = if quick { (300, 3, 2000) } else { (1000, 7, 10_000) };
    let fleet = Fleet::new(devices.max(clients));
    println!("one connection (CONNECT to CONNACK), median of {rounds} rounds of {devices} devices");
    let mut bare_cost = f64::NAN;
    for (name, with) in [("bare", None), ("RS256", Some("RS256")), ("ES256", Some("ES256"))] {
        let broker = Broker::start(&fleet, with.map(|_| plugin))?;
        let algorithm = with.unwrap_or("RS256");
        let mut costs = Vec::new();
        let mut rates = Vec::new();
        // The first round is what a device costs that is not in memory yet.
        let mut first = f64::NAN;
        for round in 0..=rounds {
            let tokens = fleet.token(algorithm);
            let (before, start) = (broker.processor()?, Instant::now());
            for index in 0..devices {
                drop(mqtt::Client::connect(broker.port, &fleet.device(algorithm, index), &tokens)?);
            }
            let rate = devices as f64 / start.elapsed().as_secs_f64();
            broker.settle();
            let cost = (broker.processor()? - before).as_secs_f64() * 1e6 / devices as f64;
            if round == 0 { first = cost } else { (costs.push(cost), rates.push(rate)).0 }
        }
        let (cost, rate) = (median(&mut costs), median(&mut rates));
        if with.is_none() {
            bare_cost = cost;
        }
        let goal = CONNECT_GOALS.iter().find(|(of, _)| *of == name).map_or(String::new(), |(_, goal)| {
            let over = cost - bare_cost;
            format!(", {over:.0} us more (goal {goal:.0}: {})", if over <= *goal { "met" } else { "MISSED" })
        });
        println!("  {name:6} {rate:6.0}/s, {cost:4.0} us of the broker (first round {first:.0}){goal}");
    }
    publishes(&fleet, plugin, rounds, quick)?;
    memory(&fleet, plugin, clients)
}

/// QoS 1 messages of 100 bytes through one connection, 20 under way, one subscriber who takes them.
fn publishes(fleet: &Fleet, plugin: &std::path::Path, rounds: usize, quick: bool) -> std::io::Result<()> {
    let count = if quick { 5000 } else { 20_000 };
    println!("messages of 100 bytes with QoS 1, one subscriber, {rounds} rounds of {count}");
    let brokers = [Broker::start(fleet, None)?, Broker::start(fleet, Some(plugin))?];
    let mut lanes = Vec::new();
    for (broker, filter) in brokers.iter().zip(["/devices/#", "registries/#"]) {
        let id = fleet.device("ES256", 0);
        let publisher = mqtt::Client::connect(broker.port, &id, &fleet.token("ES256"))?;
        let mut subscriber = mqtt::Client::connect(broker.port, "listener", "")?;
        // Bare, everybody sees what devices publish; with the plugin, the copy under the registry's name.
        subscriber.subscribe(filter)?;
        lanes.push((broker, publisher, subscriber.count_in_background()));
    }
    let mut costs = [Vec::new(), Vec::new()];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (lane, (broker, publisher, received)) in lanes.iter_mut().enumerate() {
            let (before, start, seen) = (broker.processor()?, Instant::now(), received.messages());
            publisher.publish("/devices/es256-0/events", count, 20)?;
            received.wait_for(seen + count)?;
            rates[lane].push(count as f64 / start.elapsed().as_secs_f64());
            costs[lane].push((broker.processor()? - before).as_secs_f64() * 1e6 / count as f64);
        }
    }
    let [bare, with] = costs.map(|mut costs| median(&mut costs));
    let [bare_rate, with_rate] = rates.map(|mut rates| median(&mut rates));
    let part = bare / with;
    let verdict = if part >= PUBLISH_GOAL { "met" } else { "MISSED" };
    println!("  bare   {bare_rate:6.0}/s, {bare:5.1} us of the broker");
    println!(
        "  plugin {with_rate:6.0}/s, {with:5.1} us of the broker: {:.0} % by processor, {:.0} % by time (goal {:.0} %: {verdict})",
        part * 100.0,
        with_rate / bare_rate * 100.0,
        PUBLISH_GOAL * 100.0
    );
    Ok(())
}

fn memory(fleet: &Fleet, plugin: &std::path::Path, clients: usize) -> std::io::Result<()> {
    println!("memory with {clients} clients connected");
    for (name, with) in [("bare", None), ("plugin", Some(plugin))] {
        let broker = Broker::start(fleet, with)?;
        let before = broker.memory()?;
        let token = fleet.token("ES256");
        let mut connections = Vec::with_capacity(clients);
        for index in 0..clients {
            connections.push(mqtt::Client::connect(broker.port, &fleet.device("ES256", index), &token)?);
        }
        let after = broker.memory()?;
        println!(
            "  {name:6} {:5.1} MB, {:.1} KB a client (at the start {:.1} MB)",
            after as f64 / 1e6,
            (after - before) as f64 / 1e3 / clients as f64,
            before as f64 / 1e6
        );
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
