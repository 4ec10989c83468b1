//! A device: a folder with a software TPM, a store and a configuration of its own.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::artefacts::Artefact;
use crate::der::der_field;
use crate::program::{Output, Run as _};
use crate::software_tpm::SoftwareTpm;
use crate::tpm_log::Exchange;

/// How long a process keeps session and key at the TPM after a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// To the end of the process, so that counts of commands do not depend on the machine's speed.
    ToTheEnd,
    /// As configured by default, for programs that take turns.
    Default,
}

/// A device of its own.
pub struct Device {
    folder: PathBuf,
    tpm: RefCell<Option<SoftwareTpm>>,
    /// How many TPMs it had: each has its own state.
    generation: Cell<u32>,
    mark: Cell<u64>,
    hold: Cell<Hold>,
    /// Variables of its programs beside the usual ones, or instead of them.
    variables: RefCell<Vec<(String, String)>>,
}

impl Device {
    /// A fresh TPM and an empty store, with [`Hold::ToTheEnd`].
    pub fn new() -> Self {
        Self::with_hold(Hold::ToTheEnd)
    }

    /// A fresh TPM and an empty store.
    pub fn with_hold(hold: Hold) -> Self {
        // A short name, for the sockets in it; a folder that some killed test left is no obstacle.
        let folder = tempfile::Builder::new().prefix("krv-").tempdir().expect("the test gets a folder").keep();
        for part in ["store", "lock", "modules"] {
            std::fs::create_dir(folder.join(part)).expect("the test's folder is new");
        }
        let this = Self {
            folder,
            tpm: RefCell::new(None),
            generation: Cell::new(0),
            mark: Cell::new(0),
            hold: Cell::new(hold),
            variables: RefCell::default(),
        };
        this.link_modules();
        this.write("openssl.cnf", OPENSSL_CONF);
        this.hold(hold);
        this.start_tpm();
        this
    }

    /// Writes the configuration file anew.
    pub fn hold(&self, hold: Hold) {
        self.hold.set(hold);
        let lock = format!("lock_dir = '{}'\n", self.path("lock").display());
        let hold = match hold {
            Hold::ToTheEnd => "hold_ms = 60000\nhold_at_most_ms = 60000\n",
            Hold::Default => "",
        };
        self.write("keyrivet.toml", lock + hold);
    }

    /// Its folder: the working directory of everything that runs on it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A wire to its TPM on which harm can be done; for [`Self::use_tcti`].
    pub fn wire(&self) -> crate::Wire {
        crate::Wire::to(&self.socket(), &self.path("wire.sock"))
    }

    /// The same as a device file, over which a TPM that does not answer is noticed.
    pub fn wire_as_device(&self) -> crate::Wire {
        crate::Wire::as_device(&self.socket())
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file in its folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Adds lines to its configuration.
    pub fn configure(&self, lines: &str) {
        let before = String::from_utf8(self.read("keyrivet.toml")).expect("the configuration is text");
        self.write("keyrivet.toml", before + lines);
    }

    /// Reads a file in its folder.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Its store.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The PKCS#11 module.
    pub fn module(&self) -> String {
        Artefact::Module.path().into_os_string().into_string().expect("cargo's target directory has a UTF-8 name")
    }

    /// An OpenSSL configuration that activates the provider besides `default`: for `OPENSSL_CONF`.
    pub fn openssl_conf(&self) -> PathBuf {
        self.path("openssl.cnf")
    }

    /// The TCTI string of its TPM.
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.socket().display())
    }

    /// Sets a variable for every program that is run from now on.
    pub fn set_variable(&self, name: &str, value: &str) {
        self.variables.borrow_mut().push((name.into(), value.into()));
    }

    /// Has Keyrivet reach the TPM in another way from now on.
    pub fn use_tcti(&self, tcti: &str) {
        self.set_variable("KEYRIVET_TCTI", tcti);
    }

    /// A program that runs on this device: in its folder, with its TPM and store, and a clean environment otherwise.
    pub fn command(&self, program: &str) -> Command {
        self.wait_for_own_turn_to_end();
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env_clear().envs(self.environment()).envs(self.variables.borrow().clone());
        if program.starts_with("tpm2_") {
            // They load nothing of ours, and wait for themselves at their end with a sanitizer's runtime.
            command.env_remove("LD_PRELOAD");
        }
        command
    }

    /// Runs a program on this device, given with its arguments.
    pub fn run<S: AsRef<str>>(&self, words: &[S]) -> Output {
        let mut words = words.iter().map(AsRef::as_ref);
        let program = words.next().expect("a command line names a program");
        self.command(program).args(words).run()
    }

    /// `pkcs11-tool` with our module.
    pub fn pkcs11_tool<S: AsRef<str>>(&self, arguments: &[S]) -> Output {
        self.pkcs11_tool_command(arguments).run()
    }

    /// The same, still to be run.
    pub fn pkcs11_tool_command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = self.command("pkcs11-tool");
        command.args(["--module", &self.module()]).args(arguments.iter().map(AsRef::as_ref));
        command
    }

    /// `openssl` with the default provider and ours, in that order: what makes keys by default is the former.
    pub fn openssl<S: AsRef<str>>(&self, arguments: &[S]) -> Output {
        self.openssl_command(arguments).run()
    }

    /// The same, still to be run.
    pub fn openssl_command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = self.command("openssl");
        command.env("OPENSSL_CONF", self.openssl_conf()).args(arguments.iter().map(AsRef::as_ref));
        command
    }

    /// `keyrivet`, the device's command.
    pub fn keyrivet<S: AsRef<str>>(&self, arguments: &[S]) -> Output {
        let command = Artefact::Command.path().into_os_string().into_string();
        let mut command = self.command(&command.expect("cargo's target directory has a UTF-8 name"));
        command.args(arguments.iter().map(AsRef::as_ref)).run()
    }

    /// Makes a key file of the TPM: `kind` is `genpkey`'s algorithm and its option, e.g. `["EC", "group:P-256"]`.
    pub fn new_key_file(&self, kind: [&str; 2], file: &str) {
        let [algorithm, option] = kind;
        let key = ["genpkey", "-propquery", "provider=keyrivet", "-algorithm", algorithm, "-pkeyopt", option];
        let _ = self.openssl(&[&key[..], &["-out", file]].concat()).ok();
    }

    /// Writes a file that holds a `pkcs11:` URI where a program expects a key (label `PKCS#11 PROVIDER URI`).
    pub fn wrap_uri(&self, uri: &str, file: &str) {
        let strings = [der_field(0x1a, b"PKCS#11 Provider URI v1.0"), der_field(0x0c, uri.as_bytes())];
        let der = der_field(0x30, &strings.concat());
        self.write("uri.der", der);
        let base64 = self.run(&["openssl", "base64", "-in", "uri.der"]).ok().stdout();
        let (begin, end) = ("-----BEGIN PKCS#11 PROVIDER URI-----", "-----END PKCS#11 PROVIDER URI-----");
        self.write(file, format!("{begin}\n{base64}{end}\n"));
    }

    /// Makes the test's own process one that runs on this device, for clients in-process (the module by `dlopen`).
    ///
    /// # Panics
    ///
    /// When the process runs on another device already: an environment is one per process. `cargo nextest` gives each
    /// test its own process.
    pub fn enter(&self) {
        static ENTERED: OnceLock<PathBuf> = OnceLock::new();
        let entered = ENTERED.get_or_init(|| {
            let usual = self.environment().into_iter().map(|(name, value)| (name.to_owned(), value));
            for (name, value) in usual.chain(self.variables.borrow().clone()) {
                // SAFETY: once per process, at the start of its test, before it starts threads.
                unsafe { std::env::set_var(name, value) };
            }
            self.folder.clone()
        });
        assert!(*entered == self.folder, "one test in a process: run the tests with 'cargo nextest run'");
    }

    /// Where the test's own process has just used the TPM, waits for its turn to end: what a program finds at the TPM is not
    /// what the test itself still holds.
    fn wait_for_own_turn_to_end(&self) {
        let inodes: Vec<_> = std::fs::read_dir(self.path("lock"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| Some(format!(":{}", file.metadata().ok()?.ino())))
            .collect();
        let own = std::process::id().to_string();
        let held = || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            locks.lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let file = fields.get(5).is_some_and(|file| inodes.iter().any(|inode| file.ends_with(inode)));
                file && fields.get(4) == Some(&own.as_str())
            })
        };
        // Somebody who holds it to the end sends nothing by himself.
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.hold.get() == Hold::Default && held() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The names of the TPM commands since [`Self::mark`] (or since the start), refused ones with their code.
    pub fn commands(&self) -> Vec<String> {
        self.exchanges().iter().map(describe).collect()
    }

    /// Those commands since [`Self::mark`] that the TPM took for an attack: AUTH_FAIL, BAD_AUTH, LOCKOUT.
    pub fn attacks(&self) -> Vec<String> {
        let mut commands = self.commands();
        commands.retain(|command| ["!98e", "!9a2", "!921"].iter().any(|code| command.ends_with(code)));
        commands
    }

    /// The TPM's count of wrong authorisation values, as tpm2-tools write it: `0x0`.
    pub fn lockout_counter(&self) -> String {
        let state = self.run(&["tpm2_getcap", "properties-variable"]).ok().stdout();
        let counter = state.lines().find_map(|line| line.trim().strip_prefix("TPM2_PT_LOCKOUT_COUNTER:"));
        counter.expect("a TPM tells its lockout counter").trim().to_owned()
    }

    /// The objects and sessions that are in the TPM or were saved from it, as tpm2-tools list their handles; empty if there is
    /// none.
    pub fn left_at_the_tpm(&self) -> String {
        let kinds = ["handles-transient", "handles-loaded-session", "handles-saved-session"];
        kinds.map(|kind| self.run(&["tpm2_getcap", kind]).ok().stdout()).concat()
    }

    /// The TPM's persistent handles, but for the storage root key's.
    pub fn places(&self) -> Vec<String> {
        let listed = self.run(&["tpm2_getcap", "handles-persistent"]).ok().stdout();
        let handles = listed.lines().map(|line| line.trim_start_matches("- ").to_lowercase());
        handles.filter(|handle| handle != "0x81000001").collect()
    }

    /// What went to the TPM and came back since [`Self::mark`].
    pub fn exchanges(&self) -> Vec<Exchange> {
        SoftwareTpm::exchanges(&self.log(), self.mark.get())
    }

    /// Every byte that ever went to the TPM or came back, for tests that look for secrets.
    pub fn tpm_bytes(&self) -> Vec<u8> {
        let all = SoftwareTpm::exchanges(&self.log(), 0).into_iter();
        all.flat_map(|exchange| exchange.command.into_iter().chain(exchange.response)).collect()
    }

    /// Starts counting commands anew.
    pub fn mark(&self) {
        self.mark.set(std::fs::metadata(self.log()).map_or(0, |log| log.len()));
    }

    /// Runs `work` and tells which TPM commands it cost.
    pub fn cost_of(&self, work: impl FnOnce()) -> Vec<String> {
        self.mark();
        work();
        self.commands()
    }

    /// Switches the TPM off.
    pub fn stop_tpm(&self) {
        if let Some(tpm) = self.tpm.take() {
            tpm.stop();
        }
    }

    /// Switches the TPM on (again).
    pub fn start_tpm(&self) {
        self.start(false);
    }

    /// Restarts the TPM, now without its log, which costs time: nothing can be counted until it is restarted.
    pub fn silence_tpm(&self) {
        self.stop_tpm();
        self.start(true);
    }

    /// The process id of its TPM.
    ///
    /// # Panics
    ///
    /// When the TPM is off.
    pub fn tpm_process_id(&self) -> u32 {
        self.tpm.borrow().as_ref().expect("the TPM is on").process_id()
    }

    fn start(&self, quiet: bool) {
        let state = self.path(&format!("tpm{}", self.generation.get()));
        let tpm = SoftwareTpm::start(&state, &self.socket(), &self.log(), quiet);
        let before = self.tpm.replace(Some(tpm));
        assert!(before.is_none(), "the TPM was on already");
    }

    /// Puts another, fresh TPM in place of the present one.
    pub fn swap_tpm(&self) {
        self.stop_tpm();
        self.generation.set(self.generation.get() + 1);
        self.start_tpm();
    }

    /// Pulls the TPM's plug; [`Self::start_tpm`] puts it in again.
    pub fn cut_power(&self) {
        self.tpm.take().expect("the TPM is on").cut_power();
    }

    /// Switches the TPM off and on again: in good order, or by taking its power away.
    pub fn restart_tpm(&self, orderly: bool) {
        if orderly {
            self.stop_tpm();
        } else {
            self.cut_power();
        }
        self.start_tpm();
    }

    /// Fills the folder for `OPENSSL_MODULES`: ours under its installed name, and the system's, which some programs need.
    fn link_modules(&self) {
        let modules = self.path("modules");
        let link = |file: &Path, name: &str| {
            std::os::unix::fs::symlink(file, modules.join(name)).expect("a library can be linked to");
        };
        link(&Artefact::Provider.path(), "keyrivet.so");
        let system = self.command("openssl").env_remove("OPENSSL_MODULES").args(["version", "-m"]).run().ok().stdout();
        let system = system.split('"').nth(1).expect("openssl version -m names a directory in quotes").to_owned();
        for entry in std::fs::read_dir(system).into_iter().flatten().flatten() {
            link(&entry.path(), &entry.file_name().to_string_lossy());
        }
    }

    fn socket(&self) -> PathBuf {
        self.path("tpm.sock")
    }

    fn log(&self) -> PathBuf {
        self.path("tpm.log")
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.into_os_string().into_string().expect("the test's folder has a UTF-8 name");
        // A sanitizer's runtime, and its settings, are for every program that loads our libraries.
        let sanitizer = ["LD_PRELOAD", "ASAN_OPTIONS", "TSAN_OPTIONS"]
            .map(|name| std::env::var(name).ok().map(|value| (name, value)));
        let usual = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("HOME", text(self.folder.clone())),
            ("LANG", "C.UTF-8".into()),
            ("KEYRIVET_TCTI", self.tcti()),
            ("KEYRIVET_STORE", text(self.store())),
            ("KEYRIVET_CONFIG", text(self.path("keyrivet.toml"))),
            ("OPENSSL_MODULES", text(self.path("modules"))),
            ("PKCS11_MODULE_PATH", self.module()),
            ("TPM2TOOLS_TCTI", self.tcti()),
        ];
        usual.into_iter().chain(sanitizer.into_iter().flatten()).collect()
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop_tpm();
        if std::thread::panicking() && std::env::var_os("KEYRIVET_KEEP").is_some() {
            eprintln!("left for inspection: {}", self.folder.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn describe(exchange: &Exchange) -> String {
    // A command without response is one whose client went away; the TPM did it all the same.
    match exchange {
        Exchange { response, .. } if response.is_empty() => exchange.name(),
        _ if exchange.code() == 0 => exchange.name(),
        _ => format!("{}!{:03x}", exchange.name(), exchange.code()),
    }
}

// As the README tells: `default` first, so that TLS makes its ephemeral keys there. (A section called [default] would be
// every section's fallback, config(5).)
const OPENSSL_CONF: &str = "\
openssl_conf = init

[init]
providers = providers

[providers]
default = default_provider
keyrivet = keyrivet_provider

[keyrivet_provider]
activate = 1

[default_provider]
activate = 1
";
