//! What `keyrivet-server` says of itself: help, manual pages, completions, and an OpenAPI description that the running
//! server keeps.

mod world;

use std::process::Command;

use conformance_tests::{Artefact, Output, Run as _};
use serde_json::Value;
use world::{RegistryServer, World};

/// The verbs of the seed, and what runs beside them.
const COMMANDS: [&str; 9] =
    ["registry", "device", "gateway", "config", "command", "audit", "events", "serve", "document"];

fn server(words: &[&str]) -> Output {
    Command::new(Artefact::Server.path()).args(words).run()
}

#[test]
fn every_command_has_help_and_a_manual_page() {
    let (help, page) = (server(&["--help"]).ok().stdout(), server(&["document", "man"]).ok().stdout());
    for command in COMMANDS {
        assert!(help.contains(command), "{help}");
        assert!(page.contains(&format!("keyrivet\\-server\\-{command}(1)")), "{page}");
        let _ = server(&[command, "--help"]).ok().says("Usage: keyrivet-server");
        let _ = server(&["document", "man", command]).ok().says(&format!("keyrivet\\-server\\-{command}"));
    }
    let _ = server(&["document", "man", "device", "create"]).ok().says("\\-\\-public\\-key").says("type=rs256");
    let _ =
        server(&["document", "man", "device", "invent"]).fails_with("keyrivet-server-device has no command 'invent'");
}

#[test]
fn completions_are_scripts_that_their_shell_reads() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = server(&["document", "completion", shell]).ok().says("gateway").says("auth-method").stdout();
        if shell == "bash" {
            let _ = Command::new("bash").args(["-n", "-c", &script]).run().ok();
        }
    }
    let _ = server(&["document", "completion", "tcsh"]).fails_with("possible values");
}

#[test]
fn the_server_answers_every_path_of_its_openapi_description_and_every_reference_in_it_is_there() {
    let world = World::sqlite();
    let device = world.device(&world.registry("g", &[]), "device2", &[], None).to_string();
    let server = RegistryServer::start(&world, &[]);
    let description: Value = serde_json::from_str(&server.plain(&server.hook("/openapi.json"))).expect("JSON");
    let printed: Value = serde_json::from_str(&server.command(&["document", "openapi"]).ok().stdout()).expect("JSON");
    assert_eq!(description, printed);
    let mut references = Vec::new();
    references_in(&description, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("it points into the description itself");
        assert!(description.pointer(pointer).is_some(), "there is no {reference}");
    }
    let mut seen = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let bridge = operation["tags"][0] == "bridge";
            let base = if bridge { format!("http://{}", server.bridge) } else { server.hook("") };
            let url = base + &path.replace("{device}", &device);
            let method = method.to_uppercase();
            let options = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", &method, "-d", "{}"];
            let code = Command::new("curl").args(options).arg(&url).run().ok().stdout();
            // Without a token the bridge lets nobody in; a hook may find that nothing was asked. But none of them is missing.
            assert!(!["404", "405", "500"].contains(&&*code), "{method} {url}: {code}");
            assert!(!bridge || code == "401", "{method} {url}: {code}");
            seen += 1;
        }
    }
    assert!(seen >= 14, "{description:#}");
}

fn references_in(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references_in(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references_in(value, found)),
        _ => {}
    }
}
