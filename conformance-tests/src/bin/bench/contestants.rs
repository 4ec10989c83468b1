//! Who is measured: our two libraries, the limit, and Debian's own packages for the same jobs; and the devices that
//! they run on.

use std::path::PathBuf;
use std::process::Command;

use conformance_tests::{Artefact, Device, Hold, ResourceManager, Run as _, SO_PIN, Token, Wire};

use crate::machine;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Contestant {
    /// What nobody can beat.
    Limit,
    /// Our module, a token with a PIN.
    TokenWithPin,
    /// Our module, a token whose PIN is empty.
    Token,
    /// Our provider, a key file.
    Provider,
    /// Debian's libtpm2-pkcs11-1.
    Tpm2Pkcs11,
    /// Debian's tpm2-openssl, a key file.
    Tpm2Openssl,
    /// A broker that lets everybody do everything.
    NoPlugin,
    /// A broker with our plugin, and devices that sign by RSA.
    PluginRs256,
    /// A broker with our plugin, and devices that sign by P-256.
    PluginEs256,
    /// Our server on SQLite.
    Sqlite,
    /// Our server on PostgreSQL.
    PostgreSql,
}

use Contestant::{Limit, Provider, Token as OpenToken, TokenWithPin, Tpm2Openssl, Tpm2Pkcs11};

/// The table's columns, of which those are shown that hold anything.
pub(crate) const COLUMNS: [Contestant; 11] = [
    Limit,
    TokenWithPin,
    OpenToken,
    Provider,
    Tpm2Pkcs11,
    Tpm2Openssl,
    Contestant::NoPlugin,
    Contestant::PluginRs256,
    Contestant::PluginEs256,
    Contestant::Sqlite,
    Contestant::PostgreSql,
];

impl Contestant {
    /// Who of ours is compared with which peer.
    pub(crate) const PEERS: [(Self, Self); 3] =
        [(TokenWithPin, Tpm2Pkcs11), (OpenToken, Tpm2Pkcs11), (Provider, Tpm2Openssl)];
    /// Those that are a PKCS#11 module.
    pub(crate) const MODULES: [Self; 3] = [TokenWithPin, OpenToken, Tpm2Pkcs11];
    /// Those that sign with a TPM.
    pub(crate) const SIGNERS: [Self; 6] = [Limit, TokenWithPin, OpenToken, Provider, Tpm2Pkcs11, Tpm2Openssl];
    /// Ours.
    pub(crate) const OURS: [Self; 3] = [TokenWithPin, OpenToken, Provider];

    /// Whether it is one of ours.
    pub(crate) fn is_ours(self) -> bool {
        Self::OURS.contains(&self)
    }

    /// Its name in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Limit => "limit",
            TokenWithPin => "token, PIN",
            OpenToken => "token",
            Provider => "provider",
            Tpm2Pkcs11 => "tpm2-pkcs11",
            Tpm2Openssl => "tpm2-openssl",
            Self::NoPlugin => "no plugin",
            Self::PluginRs256 => "plugin, RS256",
            Self::PluginEs256 => "plugin, ES256",
            Self::Sqlite => "SQLite",
            Self::PostgreSql => "PostgreSQL",
        }
    }
}

/// How the TPM is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Straight: the software TPM's socket.
    Direct,
    /// Through tpm2-abrmd.
    ResourceManager,
    /// Straight, with a TPM that is several times as slow as a software TPM, as a chip is.
    Slow,
    /// The same through tpm2-abrmd.
    SlowResourceManager,
}

/// How many times as slow as a software TPM a slow TPM is.
const SLOWNESS: u32 = 10;

impl Route {
    /// Those at a software TPM's own pace.
    pub(crate) const QUICK: [Self; 2] = [Self::Direct, Self::ResourceManager];

    /// What a row's name says of it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "",
            Self::ResourceManager => ", tabrmd",
            Self::Slow => ", TPM ten times as slow",
            Self::SlowResourceManager => ", TPM ten times as slow, tabrmd",
        }
    }
}

/// Everybody's keys: P-256 and RSA-2048.
pub(crate) const KEYS: [(&str, &str); 2] = [("ec", "P-256"), ("rsa", "RSA-2048")];

/// The user PIN of tokens that have one.
pub(crate) const PIN: &str = "12345678";

/// Where the limit's keys are when several processes have to share the TPM's three slots.
const PERSISTENT: [(&str, &str); 2] = [("ec", "0x81010001"), ("rsa", "0x81010002")];

/// The same keys for `openssl genpkey`: algorithm and option.
const SOFTWARE: [(&str, &str, &str); 2] = [("ec", "EC", "group:P-256"), ("rsa", "RSA", "rsa_keygen_bits:2048")];

/// The devices. Ours and the limit share one, so that they are measured on the same TPM.
pub(crate) struct Arena {
    pub(crate) ours: Device,
    pub(crate) module_peer: Device,
    pub(crate) provider_peer: Device,
    /// The devices' wires to TPMs that are slow.
    wires: [Wire; 3],
}

impl Arena {
    /// Makes everybody's keys.
    pub(crate) fn new() -> Self {
        let [ours, module_peer, provider_peer] = [(); 3].map(|()| Device::with_hold(Hold::Default));
        let wires = [&ours, &module_peer, &provider_peer].map(Device::wire);
        wires.iter().for_each(|wire| wire.slow_down(SLOWNESS));
        let this = Self { ours, module_peer, provider_peer, wires };
        this.make_ours();
        this.make_module_peer();
        this.make_provider_peer();
        this
    }

    /// The device of a contestant.
    pub(crate) fn device(&self, who: Contestant) -> &Device {
        self.devices()[self.place(who)]
    }

    fn place(&self, who: Contestant) -> usize {
        match who {
            Tpm2Pkcs11 => 1,
            Tpm2Openssl => 2,
            _ => 0,
        }
    }

    /// The PKCS#11 module of a contestant, its token and its PIN.
    pub(crate) fn token(&self, who: Contestant) -> (String, &'static str, &'static str) {
        match who {
            Tpm2Pkcs11 => (peer_module(), "peer", PIN),
            TokenWithPin => (self.ours.module(), "pin", PIN),
            _ => (self.ours.module(), "open", ""),
        }
    }

    /// Switches all TPMs to counting: everything that reaches them is logged.
    pub(crate) fn count(&self, hold: Hold) {
        self.ours.hold(hold);
        for device in self.devices() {
            device.stop_tpm();
            device.start_tpm();
            machine::place_tpm(device.tpm_process_id());
        }
        // The first use of a PIN after a TPM's start is asked for twice.
        for who in [TokenWithPin, Tpm2Pkcs11] {
            let (_, token, pin) = self.token(who);
            let _ = self.tool(who, &["--token-label", token, "--login", "--pin", pin, "--list-objects"]).run().ok();
        }
    }

    /// Switches all TPMs to timing: nothing is logged.
    pub(crate) fn time(&self) {
        self.ours.hold(Hold::Default);
        for device in self.devices() {
            device.silence_tpm();
            machine::place_tpm(device.tpm_process_id());
        }
    }

    /// Starts what the route needs; it goes when this is dropped.
    pub(crate) fn open(&self, route: Route) -> Vec<ResourceManager> {
        let managers: Vec<_> = match route {
            Route::Direct | Route::Slow => Vec::new(),
            Route::ResourceManager => self.devices().into_iter().map(ResourceManager::start).collect(),
            Route::SlowResourceManager => {
                let before = |(device, wire): (_, &Wire)| ResourceManager::start_before(device, wire.tcti());
                self.devices().into_iter().zip(&self.wires).map(before).collect()
            }
        };
        managers.iter().for_each(|manager| machine::place_tpm(manager.process_id()));
        managers
    }

    /// The worker that signs with this contestant's key, as one of several processes or alone.
    pub(crate) fn signer(&self, who: Contestant, key: &str, route: Route, threads: u32, several: bool) -> Command {
        let (module, token, pin) = self.token(who);
        let threads = threads.to_string();
        match who {
            Limit => {
                let tcti = self.tcti(who, route);
                if several && route == Route::Direct {
                    return self.worker(who, route, &["esys", &tcti, key, self.persistent(key)]);
                }
                let files = [format!("{key}.pub"), format!("{key}.priv")];
                self.worker(who, route, &["esys", &tcti, key, &files[0], &files[1]])
            }
            Provider | Tpm2Openssl => self.worker(who, route, &["openssl", &format!("{key}.pem")]),
            _ => self.worker(who, route, &["pkcs11", &module, token, pin, key, &threads]),
        }
    }

    /// A worker on this contestant's device.
    pub(crate) fn worker(&self, who: Contestant, route: Route, arguments: &[&str]) -> Command {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut command = self.command(who, route, program.to_str().expect("cargo's target directory is UTF-8"));
        command.arg("worker").args(arguments);
        command
    }

    /// A program on this contestant's device, that finds the TPM by this route and the contestant's provider.
    pub(crate) fn command(&self, who: Contestant, route: Route, program: &str) -> Command {
        let (device, tcti) = (self.device(who), self.tcti(who, route));
        let mut command = device.command(program);
        for variable in ["KEYRIVET_TCTI", "TPM2_PKCS11_TCTI", "TPM2OPENSSL_TCTI"] {
            command.env(variable, &tcti);
        }
        command.env("OPENSSL_CONF", if who == Tpm2Openssl { device.path("tpm2.cnf") } else { device.openssl_conf() });
        command
    }

    /// `pkcs11-tool` with this contestant's module.
    pub(crate) fn tool(&self, who: Contestant, arguments: &[&str]) -> Command {
        let mut command = self.command(who, Route::Direct, "pkcs11-tool");
        command.args(["--module", &self.token(who).0]).args(arguments);
        command
    }

    /// The URI of a key of our tokens, by the provider's store.
    pub(crate) fn uri(&self, who: Contestant, key: &str) -> String {
        let (_, token, pin) = self.token(who);
        let uri = format!("pkcs11:token={token};object={key};type=private");
        if pin.is_empty() { uri } else { format!("{uri}?pin-source=file:{}", self.ours.path("pin.pin").display()) }
    }

    /// The handle of a key that is in the TPM for good, on both devices that have a provider.
    pub(crate) fn persistent(&self, key: &str) -> &'static str {
        PERSISTENT.iter().find(|(name, _)| *name == key).map_or("", |(_, handle)| handle)
    }

    /// How many TPM commands one run of a program costs.
    pub(crate) fn commands_of(&self, who: Contestant, mut command: Command) -> Result<f64, String> {
        self.device(who).mark();
        let output = command.run();
        let commands = self.device(who).commands().len();
        if output.succeeded() { Ok(commands as f64) } else { Err(output.stderr()) }
    }

    fn tcti(&self, who: Contestant, route: Route) -> String {
        match route {
            Route::Direct => self.device(who).tcti(),
            Route::ResourceManager | Route::SlowResourceManager => "tabrmd:bus_type=session".into(),
            Route::Slow => self.wires[self.place(who)].tcti().into(),
        }
    }

    fn devices(&self) -> [&Device; 3] {
        [&self.ours, &self.module_peer, &self.provider_peer]
    }

    fn make_ours(&self) {
        let device = &self.ours;
        for (label, pin) in [("pin", PIN), ("open", "")] {
            let token = Token::new(device, label, pin);
            token.generate("EC:prime256v1", "ec", "01");
            token.generate("rsa:2048", "rsa", "02");
        }
        device.new_key_file(["EC", "group:P-256"], "ec.pem");
        device.new_key_file(["RSA", "rsa_keygen_bits:2048"], "rsa.pem");
        device.write("data", "what is signed");
        device.write("digest", [7; 32]);
        make_persistent(device);
        for (key, algorithm, option) in SOFTWARE {
            let file = format!("software-{key}.pem");
            let _ =
                device.run(&["openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", &file]).ok();
        }
    }

    fn make_module_peer(&self) {
        let device = &self.module_peer;
        std::fs::create_dir(device.path("peer")).expect("the device's folder is new");
        device.set_variable("TPM2_PKCS11_STORE", &device.path("peer").to_string_lossy());
        device.set_variable("TPM2_PKCS11_BACKEND", "esysdb");
        let tool = |arguments: &[&str]| {
            let mut command = self.command(Tpm2Pkcs11, Route::Direct, "pkcs11-tool");
            let _ = command.args(["--module", &peer_module()]).args(arguments).run().ok();
        };
        device.write("data", "what is signed");
        device.write("digest", [7; 32]);
        tool(&["--init-token", "--slot-index", "0", "--label", "peer", "--so-pin", SO_PIN]);
        let so = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        tool(&[&["--init-pin", "--token-label", "peer", "--new-pin", PIN], &so[..]].concat());
        for (kind, label, id) in [("EC:prime256v1", "ec", "01"), ("rsa:2048", "rsa", "02")] {
            let key = ["--keypairgen", "--key-type", kind, "--label", label, "--id", id];
            tool(&[&["--token-label", "peer", "--login", "--pin", PIN], &key[..]].concat());
        }
    }

    fn make_provider_peer(&self) {
        let device = &self.provider_peer;
        // It fails when it is not the first.
        device.write(
            "tpm2.cnf",
            "openssl_conf = init\n[init]\nproviders = providers\n[providers]\ntpm2 = tpm2_provider\n\
             default = default_provider\n[tpm2_provider]\nactivate = 1\n[default_provider]\nactivate = 1\n",
        );
        device.write("data", "what is signed");
        make_persistent(device);
        for (key, algorithm, option) in SOFTWARE {
            let file = format!("{key}.pem");
            let words = ["genpkey", "-propquery", "provider=tpm2", "-algorithm", algorithm, "-pkeyopt", option, "-out"];
            let _ = self.command(Tpm2Openssl, Route::Direct, "openssl").args(words).arg(&file).run().ok();
        }
    }
}

/// Makes P-256 and RSA keys by tpm2-tools, as files and in the TPM for good.
fn make_persistent(device: &Device) {
    let parent = ["-C", "0x81000001"];
    if !device.run(&["tpm2_readpublic", "-Q", "-c", "0x81000001"]).succeeded() {
        let _ = device.run(&["tpm2_createprimary", "-Q", "-G", "ecc", "-c", "parent.ctx"]).ok();
        let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "parent.ctx", "0x81000001"]).ok();
        let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    }
    for ((key, handle), kind) in PERSISTENT.into_iter().zip(["ecc256", "rsa2048"]) {
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";
        let (public, private) = (format!("{key}.pub"), format!("{key}.priv"));
        let files = ["-u", &public, "-r", &private];
        let create = [&["tpm2_create", "-Q", "-G", kind, "-a", attributes], &parent[..], &files].concat();
        let _ = device.run(&create).ok();
        let _ = device.run(&[&["tpm2_load", "-Q", "-c", "key.ctx"], &parent[..], &files].concat()).ok();
        let _ = device.run(&["tpm2_evictcontrol", "-Q", "-C", "o", "-c", "key.ctx", handle]).ok();
        // Nobody flushes for us where there is no resource manager.
        let _ = device.run(&["tpm2_flushcontext", "-t"]).ok();
    }
}

fn peer_module() -> String {
    let directory = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let module = directory.join("pkcs11/libtpm2_pkcs11.so");
    assert!(module.exists(), "{} is missing: apt-get install libtpm2-pkcs11-1", module.display());
    module.to_string_lossy().into_owned()
}

/// Refuses to measure what nobody uses.
pub(crate) fn require_release_build() {
    let module = Artefact::Module.path();
    let profile = module.parent().and_then(|directory| directory.file_name());
    assert!(
        profile.is_some_and(|name| name == "release"),
        "measure a release build: conformance-tests/bench makes one"
    );
}
