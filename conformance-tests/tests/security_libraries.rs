//! What the two libraries bring into the processes that load them: nothing but what they must.

use std::path::Path;
use std::process::Command;

use conformance_tests::{Artefact, Device, Run as _};

/// No libcrypto, no libtss2-esys (which brings libcrypto), no libssl.
const MAY_NEED: [&str; 6] =
    ["libtss2-sys.so", "libtss2-mu.so", "libtss2-tctildr.so", "libgcc_s.so", "libc.so", "ld-linux"];

#[test]
fn both_libraries_need_three_libraries_of_tss2_and_the_c_library_only() {
    for artefact in [Artefact::Module, Artefact::Provider] {
        let dynamic = readelf("--dynamic", &artefact.path());
        let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
        assert!(!needed.is_empty(), "{dynamic}");
        for line in needed {
            assert!(MAY_NEED.iter().any(|name| line.contains(&format!("[{name}"))), "{artefact:?} needs {line}");
        }
    }
}

#[test]
fn both_libraries_stay_in_memory_for_their_background_thread() {
    for artefact in [Artefact::Module, Artefact::Provider] {
        let dynamic = readelf("--dynamic", &artefact.path());
        assert!(dynamic.lines().any(|line| line.contains("(FLAGS_1)") && line.contains("NODELETE")), "{dynamic}");
    }
}

#[test]
fn the_provider_exports_its_one_entry_point() {
    assert_eq!(exported(Artefact::Provider), ["OSSL_provider_init"]);
}

#[test]
fn the_module_exports_the_functions_of_the_standard_and_nothing_else() {
    let names = exported(Artefact::Module);
    let strangers: Vec<_> = names.iter().filter(|name| !name.starts_with("C_")).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    for name in ["C_GetFunctionList", "C_GetInterface", "C_GetInterfaceList", "C_Initialize", "C_Sign"] {
        assert!(names.iter().any(|known| known == name), "{name} is missing from {names:?}");
    }
}

#[test]
fn loading_the_libraries_and_listing_what_they_offer_costs_the_tpm_nothing() {
    let device = Device::new();
    for arguments in [["--list-slots"], ["--list-mechanisms"], ["--show-info"], ["--list-interfaces"]] {
        let _ = device.pkcs11_tool(&arguments);
    }
    let _ = device.openssl(&["list", "-providers", "-verbose"]).ok().silent().says("keyrivet");
    let _ = device.openssl(&["list", "-signature-algorithms", "-provider", "keyrivet"]).ok().silent();
    assert!(device.commands().is_empty(), "{:?}", device.commands());
}

fn exported(artefact: Artefact) -> Vec<String> {
    let table = readelf("--dyn-syms", &artefact.path());
    // Num: Value Size Type Bind Vis Ndx Name
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let defined = rows.filter(|row| row.len() >= 8 && matches!(row[4], "GLOBAL" | "WEAK") && row[6] != "UND");
    defined.map(|row| row[7].to_owned()).collect()
}

fn readelf(what: &str, library: &Path) -> String {
    Command::new("readelf").args(["--wide", what]).arg(library).run().ok().stdout()
}
