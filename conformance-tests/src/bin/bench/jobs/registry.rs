//! What the registry costs a mosquitto, and how many hooks of other brokers its server answers.

use std::time::{Duration, Instant};

use super::Bench;
use crate::contestants::Contestant;
use crate::machine;
use crate::measure::{Lane, Slice, interleave};
use crate::registry::broker::Broker;
use crate::registry::fleet::Fleet;
use crate::registry::hooks::{HookServer, Question};
use crate::registry::mqtt::{Client, Received};
use crate::report::{Better, Report, Row};
use crate::statistics::Series;

use Contestant::{NoPlugin, PluginEs256, PluginRs256, PostgreSql, Sqlite};

/// Devices of the small fleet, and as many as are connected one after the other.
const SMALL: usize = 1_000;
/// Microseconds of the broker that the plugin may add to a connection.
const CONNECT_GOALS: [(Contestant, f64); 2] = [(PluginRs256, 60.0), (PluginEs256, 90.0)];
/// The part of a bare broker's messages that must remain.
const PUBLISH_GOAL: f64 = 0.95;
/// The part of its pace that a fleet a hundred times as large must keep.
const GROWTH_GOAL: f64 = 0.9;
/// Messages under way.
const WINDOW: usize = 20;
/// Brokers of each kind that messages go through: one process is some per cent quicker than another for all of its life.
const BROKERS: usize = 16;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    // Registry and brokers are no real-time programs.
    if let Err(reason) = machine::as_usual(|| measure(bench, report)) {
        report.notes.push(format!("the registry could not be measured: {reason}"));
        report.goal("the registry can be measured", 0.0, Better::Higher, 1.0);
    }
}

fn measure(bench: &Bench, report: &mut Report) -> Result<(), String> {
    allow_many_files();
    let (large, clients) = if bench.quick { (10 * SMALL, SMALL) } else { (100 * SMALL, 10 * SMALL) };
    eprintln!("  registries with {SMALL} and {large} devices ...");
    let sqlite = [Fleet::sqlite(SMALL)?, Fleet::sqlite(large)?];
    machine::apart(|| {
        eprintln!("  connections ...");
        connections(bench, report, &sqlite)?;
        eprintln!("  messages ...");
        publishes(bench, report, &sqlite[0])
    })?;
    eprintln!("  memory ...");
    memory(report, &sqlite[1], clients)?;
    eprintln!("  hooks ...");
    let postgresql = [Fleet::postgresql(SMALL)?, Fleet::postgresql(large)?];
    hooks(bench, report, [(Sqlite, &sqlite), (PostgreSql, &postgresql)])
}

/// Devices that connect one after the other and leave at once.
struct Connections<'a> {
    broker: &'a Broker,
    fleet: &'a Fleet,
    algorithm: &'static str,
}

impl Lane for Connections<'_> {
    /// All of them once, however long that takes.
    fn slice(&mut self, _time: Duration) -> Result<Slice, String> {
        let stride = self.fleet.devices / SMALL;
        let token = self.fleet.token(self.algorithm);
        let connect = || {
            let (before, start) = (self.broker.processor()?, Instant::now());
            for index in 0..SMALL {
                drop(Client::connect(self.broker.port, &self.fleet.client_id(index * stride), &token)?);
            }
            let value = SMALL as f64 / start.elapsed().as_secs_f64();
            self.broker.settle();
            let processor = (self.broker.processor()? - before).as_secs_f64() * 1e6 / SMALL as f64;
            Ok(Slice { value, processor, ..Slice::default() })
        };
        connect().map_err(|error: std::io::Error| error.to_string())
    }
}

/// The same with a broker that has just started, so that no device is in its memory yet.
struct FirstConnections<'a> {
    fleet: &'a Fleet,
    algorithm: &'static str,
}

impl Lane for FirstConnections<'_> {
    fn slice(&mut self, time: Duration) -> Result<Slice, String> {
        let broker = Broker::start(self.fleet, true).map_err(|error| error.to_string())?;
        Connections { broker: &broker, fleet: self.fleet, algorithm: self.algorithm }.slice(time)
    }
}

/// The verification of tokens' signatures, by itself.
struct Verifications<'a> {
    fleet: &'a Fleet,
    algorithm: &'static str,
}

impl Lane for Verifications<'_> {
    fn slice(&mut self, _time: Duration) -> Result<Slice, String> {
        let start = Instant::now();
        self.fleet.verify(self.algorithm, SMALL)?;
        Ok(Slice { processor: start.elapsed().as_secs_f64() * 1e6 / SMALL as f64, ..Slice::default() })
    }
}

fn connections(bench: &Bench, report: &mut Report, fleets: &[Fleet; 2]) -> Result<(), String> {
    let [small, large] = fleets;
    let start = |fleet, plugin| Broker::start(fleet, plugin).map_err(|error| error.to_string());
    let (bare, with, beside_many) = (start(small, false)?, start(small, true)?, start(large, true)?);
    let lane = |broker, fleet, algorithm| Connections { broker, fleet, algorithm };
    let mut warm = [
        lane(&bare, small, "RS256"),
        lane(&with, small, "RS256"),
        lane(&with, small, "ES256"),
        lane(&beside_many, large, "RS256"),
        lane(&beside_many, large, "ES256"),
    ];
    // Once, so that every device is in the brokers' memory.
    warm.iter_mut().try_for_each(|lane| lane.slice(Duration::ZERO).map(drop))?;
    let mut cold =
        [small, large].map(|fleet| ["RS256", "ES256"].map(|algorithm| FirstConnections { fleet, algorithm }));
    let mut alone = ["RS256", "ES256"].map(|algorithm| Verifications { fleet: small, algorithm });
    let mut lanes: Vec<&mut dyn Lane> = warm.iter_mut().map(|lane| lane as &mut dyn Lane).collect();
    lanes.extend(cold.iter_mut().flatten().map(|lane| lane as &mut dyn Lane));
    lanes.extend(alone.iter_mut().map(|lane| lane as &mut dyn Lane));
    let slices = interleave(&mut lanes, bench.rounds(12), Duration::ZERO);
    let rate = |place: usize| slices[place].series(|slice| slice.value);
    let cost = |place: usize| slices[place].series(|slice| slice.processor);

    let mut rates = Row::new("connections, one after the other", "/s", Better::Higher);
    let mut costs = Row::new("broker's processor for one connection", "µs", Better::Lower);
    for (who, place) in [(NoPlugin, 0), (PluginRs256, 1), (PluginEs256, 2)] {
        rates.measured(who, rate(place), None);
        costs.measured(who, cost(place), None);
    }
    report.row(rates);
    report.row(costs);
    let mut verification = Row::informative("to verify a token's signature, by itself", "µs");
    for (who, place) in [(PluginRs256, 9), (PluginEs256, 10)] {
        verification.measured(who, cost(place), None);
    }
    report.row(verification);
    let bare = cost(0)?;
    for ((who, limit), place) in CONNECT_GOALS.into_iter().zip(1..) {
        let more = Series(cost(place)?.0.iter().zip(&bare.0).map(|(with, without)| with - without).collect());
        report.goal(format!("{}: more µs for one connection", who.title()), more.median(), Better::Lower, limit);
    }
    for (fleet, warm, cold) in [(small, [1, 2], [5, 6]), (large, [3, 4], [7, 8])] {
        for (what, places) in [("one connection", warm), ("a device's first connection", cold)] {
            let name = format!("broker's processor for {what}, {} devices", fleet.devices);
            let mut row = Row::new(name, "µs", Better::Lower);
            for (who, place) in [PluginRs256, PluginEs256].into_iter().zip(places) {
                row.measured(who, cost(place), None);
            }
            report.row(row);
        }
    }
    for (who, few, many) in [(PluginRs256, 1, 3), (PluginEs256, 2, 4)] {
        let part = cost(few)?.ratio_to(&cost(many)?);
        let what = format!("{}: pace of connections with {} devices against {SMALL}", who.title(), large.devices);
        report.goal(what, part, Better::Higher, GROWTH_GOAL);
    }
    Ok(())
}

/// Who publishes to whom.
#[derive(Clone, Copy)]
enum Traffic {
    /// Without a plugin everybody sees what a device publishes.
    Bare,
    /// A device's events become those of its registry.
    Devices,
    /// The plugin is asked about each message and each reader, and has nothing else to do with them.
    Others,
}

impl Traffic {
    const ALL: [Self; 3] = [Self::Bare, Self::Devices, Self::Others];
}

/// A client that publishes, and one subscriber who is given what it says.
struct Messages {
    broker: Broker,
    publisher: Client,
    topic: String,
    received: Received,
}

impl Messages {
    fn start(fleet: &Fleet, traffic: Traffic) -> std::io::Result<Self> {
        let broker = Broker::start(fleet, !matches!(traffic, Traffic::Bare))?;
        let (filter, topic) = match traffic {
            Traffic::Bare => ("/devices/#", fleet.events(0)),
            Traffic::Devices => ("registries/#", fleet.events(0)),
            Traffic::Others => ("/others/#", fleet.events(0).replace("/devices/", "/others/")),
        };
        let publisher = match traffic {
            Traffic::Others => Client::connect(broker.port, "talker", "")?,
            _ => Client::connect(broker.port, &fleet.client_id(0), &fleet.token("ES256"))?,
        };
        let mut subscriber = Client::connect(broker.port, "listener", "")?;
        subscriber.subscribe(filter)?;
        Ok(Self { broker, publisher, topic, received: subscriber.count_in_background() })
    }

    fn publish(&mut self, time: Duration) -> std::io::Result<Slice> {
        let (before, start, seen) = (self.broker.processor()?, Instant::now(), self.received.messages());
        let count = self.publisher.publish(&self.topic, WINDOW, time)?;
        self.received.wait_for(seen + count)?;
        let value = count as f64 / start.elapsed().as_secs_f64();
        let processor = (self.broker.processor()? - before).as_secs_f64() * 1e6 / count as f64;
        Ok(Slice { value, processor, ..Slice::default() })
    }
}

impl Lane for Messages {
    fn slice(&mut self, time: Duration) -> Result<Slice, String> {
        self.publish(time).map_err(|error| error.to_string())
    }
}

fn publishes(bench: &Bench, report: &mut Report, fleet: &Fleet) -> Result<(), String> {
    let start = |traffic| Messages::start(fleet, traffic).map_err(|error| error.to_string());
    let brokers = (0..BROKERS).flat_map(|_| Traffic::ALL).map(start);
    let mut brokers = brokers.collect::<Result<Vec<_>, String>>()?;
    let mut lanes: Vec<&mut dyn Lane> = brokers.iter_mut().map(|lane| lane as &mut dyn Lane).collect();
    let slices = interleave(&mut lanes, bench.rounds(8), bench.slice());
    let series = |traffic: Traffic, of: fn(&Slice) -> f64| {
        let all = slices.iter().skip(traffic as usize).step_by(Traffic::ALL.len()).map(|slices| slices.series(of));
        Ok::<_, String>(Series(all.collect::<Result<Vec<_>, _>>()?.into_iter().flat_map(|series| series.0).collect()))
    };
    for (whose, traffic) in [("a device's messages", Traffic::Devices), ("others' messages", Traffic::Others)] {
        let mut rates = Row::new(format!("{whose} of 100 bytes, QoS 1, one subscriber"), "/s", Better::Higher);
        let mut costs = Row::new(format!("broker's processor for one of {whose}"), "µs", Better::Lower);
        for (who, traffic) in [(NoPlugin, Traffic::Bare), (PluginEs256, traffic)] {
            rates.measured(who, series(traffic, |slice| slice.value), None);
            costs.measured(who, series(traffic, |slice| slice.processor), None);
        }
        report.row(rates);
        report.row(costs);
        for (per, of) in
            [("second", (|slice| slice.value) as fn(&Slice) -> f64), ("processor time", |slice| 1.0 / slice.processor)]
        {
            let part = series(traffic, of)?.ratio_to(&series(Traffic::Bare, of)?);
            report.goal(
                format!("{whose} per {per}, with the plugin against without"),
                part,
                Better::Higher,
                PUBLISH_GOAL,
            );
        }
    }
    Ok(())
}

fn memory(report: &mut Report, fleet: &Fleet, clients: usize) -> Result<(), String> {
    let mut all = Row::new(format!("broker's memory with {clients} clients"), "MB", Better::Lower);
    let mut each = Row::new("of that for each client", "KB", Better::Lower);
    for (who, plugin) in [(NoPlugin, false), (PluginEs256, true)] {
        let measure = || -> std::io::Result<(usize, usize)> {
            let broker = Broker::start(fleet, plugin)?;
            let (before, token) = (broker.memory()?, fleet.token("ES256"));
            let connect = |index| Client::connect(broker.port, &fleet.client_id(index), &token);
            let _connected = (0..clients).map(connect).collect::<std::io::Result<Vec<_>>>()?;
            broker.settle();
            Ok((before, broker.memory()?))
        };
        let (before, after) = measure().map_err(|error| error.to_string())?;
        all.exact(who, Ok(after as f64 / 1e6));
        each.exact(who, Ok((after - before) as f64 / 1e3 / clients as f64));
    }
    report.row(all);
    report.row(each);
    Ok(())
}

/// One kind of question to one server.
struct Hooks<'a, 'b> {
    server: &'a HookServer<'b>,
    question: Question,
}

impl Lane for Hooks<'_, '_> {
    fn slice(&mut self, time: Duration) -> Result<Slice, String> {
        let value = self.server.ask(self.question, time).map_err(|error| error.to_string())?;
        Ok(Slice { value, ..Slice::default() })
    }
}

fn hooks(bench: &Bench, report: &mut Report, databases: [(Contestant, &[Fleet; 2]); 2]) -> Result<(), String> {
    const QUESTIONS: [(&str, Question); 3] = [
        ("connect, RS256", Question::Connect("RS256")),
        ("connect, ES256", Question::Connect("ES256")),
        ("publish", Question::Publish),
    ];
    let fleets = databases.iter().flat_map(|(who, fleets)| fleets.iter().map(move |fleet| (*who, fleet)));
    let started = fleets.map(|(who, fleet)| Ok((who, fleet.devices, HookServer::start(fleet)?)));
    let servers = started.collect::<Result<Vec<_>, String>>()?;
    let mut keys = Vec::new();
    let mut lanes = Vec::new();
    for (name, question) in QUESTIONS {
        for (who, devices, server) in &servers {
            keys.push((*who, *devices, name));
            lanes.push(Hooks { server, question });
        }
    }
    // Once, so that what is asked about is in the servers' memory.
    lanes.iter_mut().try_for_each(|lane| lane.slice(bench.slice()).map(drop))?;
    let mut lanes: Vec<&mut dyn Lane> = lanes.iter_mut().map(|lane| lane as &mut dyn Lane).collect();
    let slices = interleave(&mut lanes, bench.rounds(12), bench.slice() * 2);
    let series = |key| {
        let place = keys.iter().position(|known| *known == key).ok_or("nobody asked that")?;
        slices[place].series(|slice| slice.value)
    };
    let sizes = databases[0].1.each_ref().map(|fleet| fleet.devices);
    for (name, _) in QUESTIONS {
        for devices in sizes {
            let mut row = Row::new(format!("hooks answered: {name}, {devices} devices"), "/s", Better::Higher);
            for (who, _) in databases {
                row.measured(who, series((who, devices, name)), None);
            }
            report.row(row);
        }
        for (who, _) in databases {
            let part = series((who, sizes[1], name))?.ratio_to(&series((who, sizes[0], name))?);
            let what =
                format!("{}: pace of hooks ({name}) with {} devices against {}", who.title(), sizes[1], sizes[0]);
            report.goal(what, part, Better::Higher, GROWTH_GOAL);
        }
    }
    Ok(())
}

/// Each client is a socket here and one in the broker: as many as the system lets this process have.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("the number of open files stays small: {error}");
    }
}
