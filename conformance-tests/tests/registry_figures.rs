//! How many hooks the server answers in a second, with 1,000 and with 100,000 devices, on both databases. It prints
//! figures; what it asserts is that the answers are right. Its own processes must be built with --release.

mod world;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use keyrivet_registry::store::NewDevice;
use keyrivet_registry::{Credential, RegistryName};
use world::{RegistryServer, World};

const CLIENTS: usize = 8;
const SPAN: Duration = Duration::from_secs(5);
const BATCH: usize = 5000;

on_both_databases_when_asked!(hooks_are_answered_as_fast_for_a_large_fleet_as_for_a_small_one);

fn hooks_are_answered_as_fast_for_a_large_fleet_as_for_a_small_one(world: &World) {
    let registry = world.registry("g", &[]);
    world.key("rsa", "RS256");
    world.key("ec", "ES256");
    let mut made = 0;
    for devices in [1_000, 100_000] {
        let start = Instant::now();
        fill(world, &registry, made, devices);
        made = devices;
        println!("{devices} devices, filled in {:.1} s", start.elapsed().as_secs_f64());
        let server = RegistryServer::start(world, &[]);
        // Every device has both keys, so that two tokens serve all.
        for (name, key, algorithm) in [("RS256", "rsa", "RS256"), ("ES256", "ec", "ES256")] {
            let token = world.token(key, algorithm, 0, 3600);
            let connect = |number: usize| {
                let body = format!(r#"{{"clientid":"{registry}/devices/d{number:06}","password":"{token}"}}"#);
                ("/hooks/emqx/authn", body)
            };
            let once = measure(&server, devices.min(20_000), &connect);
            println!("  connects {name}: {once:.0}/s");
        }
        let authorise = |number: usize| {
            let body = format!(
                r#"{{"clientid":"{registry}/devices/d{number:06}","action":"publish","topic":"/devices/d{number:06}/events","qos":1}}"#
            );
            ("/hooks/emqx/authz", body)
        };
        println!("  publishes: {:.0}/s", measure(&server, devices.min(20_000), &authorise));
        let memory = std::fs::read_to_string(format!("/proc/{}/status", server.process.process_id())).expect("status");
        let memory = memory.lines().find(|line| line.starts_with("VmRSS")).expect("a size");
        println!("  {memory}");
    }
}

fn fill(world: &World, registry: &RegistryName, from: usize, to: usize) {
    let credentials: Vec<_> =
        ["rsa.pub", "ec.pub"].map(|file| Credential::parse(&world.read(file), None, None).expect(file)).into();
    let device = |number: usize| NewDevice {
        name: registry.device(&format!("d{number:06}")).expect("an id"),
        gateway: None,
        credentials: credentials.clone(),
        blocked: false,
        metadata: Default::default(),
    };
    let numbers: Vec<_> = (from..to).collect();
    for batch in numbers.chunks(BATCH) {
        let batch: Vec<_> = batch.iter().map(|number| device(*number)).collect();
        world.fleet.store().create_devices(&batch, world.now).expect("the devices are new");
    }
}

/// Answers per second: some clients, each with a connection that stays, go through the devices.
fn measure(
    server: &RegistryServer<'_>,
    devices: usize,
    request: &(dyn Fn(usize) -> (&'static str, String) + Sync),
) -> f64 {
    let start = Instant::now();
    let address = &server.hook("").trim_start_matches("http://").to_owned();
    let count: usize = std::thread::scope(|scope| {
        let client = |client: usize| scope.spawn(move || one_client(address, client, devices, request, start));
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        clients.into_iter().map(|client| client.join().expect("a client ends")).sum()
    });
    count as f64 / start.elapsed().as_secs_f64()
}

fn one_client(
    address: &str,
    client: usize,
    devices: usize,
    request: &(dyn Fn(usize) -> (&'static str, String) + Sync),
    start: Instant,
) -> usize {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("an option");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let mut count = 0;
    while start.elapsed() < SPAN {
        let (path, body) = request((client + count * CLIENTS) % devices);
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).expect("sent");
        let mut length = 0;
        loop {
            let mut line = String::new();
            let _ = reader.read_line(&mut line).expect("an answer");
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).expect("a body");
        assert!(
            String::from_utf8_lossy(&answer).contains(r#""result":"allow""#),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        count += 1;
    }
    count
}
