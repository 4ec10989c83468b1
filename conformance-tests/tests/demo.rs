//! The demo, as the README tells everybody to run it.

use std::process::Command;

use conformance_tests::Run as _;

#[test]
fn the_demo_runs_to_its_summary_and_leaves_nothing_running() {
    let folder = std::env::temp_dir().join(format!("krv-demo-{}", std::process::id()));
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");
    let output = Command::new(demo).arg("--folder").arg(&folder).run().ok();
    let text = output.stdout();
    let summary = text.rsplit("TPM commands").next().expect("there is a summary");
    for chapter in ["pki", "token", "csr", "mqtt", "https", "jwt", "registry", "p11kit", "proof"] {
        assert!(summary.contains(chapter), "no {chapter} in the summary:\n{summary}");
    }
    assert!(text.contains("SOFTWARE TPM"), "a software TPM is never used silently:\n{text}");
    // Everything it started has its folder in its command line.
    let name = folder.file_name().expect("the folder has a name").to_string_lossy();
    let _ = Command::new("pgrep").args(["--full", &format!("(swtpm|nginx|mosquitto).*{name}")]).run().fails();
    std::fs::remove_dir_all(&folder).expect("the folder is left to whoever ran it");
}

#[test]
fn an_unknown_chapter_is_refused_with_the_list_of_those_there_are() {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");
    let _ = Command::new(demo).args(["--only", "poetry"]).run().fails_with("pki token csr");
}
