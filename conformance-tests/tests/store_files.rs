//! Damage to the store: whatever is in place of a file loses at most itself, and says so.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use conformance_tests::{Device, Output, Run as _, SO_PIN, Token};

/// What may be found in place of a file, and how it gets there.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 13] = [
    ("truncated", |path| {
        let text = std::fs::read(path).unwrap();
        std::fs::write(path, &text[..text.len() / 2]).unwrap();
    }),
    ("empty", |path| std::fs::write(path, "").unwrap()),
    ("huge", |path| File::options().write(true).open(path).unwrap().set_len(100 << 20).unwrap()),
    ("binary", |path| std::fs::write(path, [0xff, 0, 0xfe, 0x80].repeat(500)).unwrap()),
    ("of a later version", |path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, format!("version = 2\n{text}")).unwrap();
    }),
    ("unreadable", |path| std::fs::set_permissions(path, Permissions::from_mode(0o0)).unwrap()),
    ("a directory", |path| instead(path, |path| std::fs::create_dir(path))),
    ("a dangling link", |path| instead(path, |path| symlink("nowhere", path))),
    ("a link to itself", |path| instead(path, |path| symlink(path, path))),
    ("an endless link", |path| instead(path, |path| symlink("/dev/zero", path))),
    ("a terminal", |path| instead(path, |path| symlink("/dev/tty", path))),
    ("a pipe", |path| {
        instead(path, |path| Command::new("mkfifo").arg(path).status().map(|status| assert!(status.success())));
    }),
    ("a socket", |path| instead(path, |path| UnixListener::bind(path).map(drop))),
];

fn instead(path: &Path, put: impl FnOnce(&Path) -> std::io::Result<()>) {
    std::fs::remove_file(path).unwrap();
    put(path).unwrap();
}

/// Two tokens without a PIN: `sensor` with the keys `first` and `second`, `gateway` with `only`.
struct Shelf {
    device: Device,
}

impl Shelf {
    fn new() -> Self {
        let device = Device::new();
        // A file with no rights is one for root, too.
        let sensor = Token::new(&device, "sensor", "");
        sensor.generate("EC:prime256v1", "first", "01");
        sensor.generate("EC:prime256v1", "second", "02");
        Token::new(&device, "gateway", "").generate("EC:prime256v1", "only", "01");
        device.write("patience.toml", "patience_ms = 300\n");
        device.configure("patience_ms = 300\n");
        // A copy, to begin again from.
        let _ = device.run(&["cp", "-a", "store", "whole"]).ok();
        Self { device }
    }

    /// As it was made.
    fn restore(&self) {
        let _ = self.device.run(&["rm", "-r", "store"]).ok();
        let _ = self.device.run(&["cp", "-a", "whole", "store"]).ok();
    }

    /// A program, yet to be named, without root's right to read everything, and with an end.
    fn powerless(&self) -> Command {
        let mut command = self.device.command("timeout");
        command.arg("20");
        if self.device.run(&["id", "-u"]).ok().stdout().trim() == "0" {
            command.args(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
        }
        command
    }

    fn tool(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = self.powerless();
        command.args(["pkcs11-tool", "--module", &self.device.module()]).env("KEYRIVET_LOG", "error");
        if !token.is_empty() {
            command.args(["--token-label", token]);
        }
        command.args(arguments).run()
    }

    fn sign(&self, token: &str, id: &str) -> Output {
        let sign = ["--sign", "--id", id, "--mechanism", "ECDSA-SHA256", "-i", "openssl.cnf", "-o", "signature"];
        self.tool(token, &sign)
    }

    fn sign_by_provider(&self, token: &str, label: &str) -> Output {
        let key = format!("pkcs11:token={token};object={label};type=private");
        let mut command = self.powerless();
        command.env("OPENSSL_CONF", self.device.openssl_conf());
        command.args(["openssl", "dgst", "-sha256", "-sign", &key, "-out", "signature", "openssl.cnf"]).run()
    }

    /// The directory of a token.
    fn directory(&self, token: &str) -> PathBuf {
        let tokens = std::fs::read_dir(self.device.store()).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: &PathBuf| {
            let text = std::fs::read_to_string(path.join("token.toml")).unwrap_or_default();
            text.contains(&format!("label = \"{token}\""))
        };
        tokens.into_iter().find(named).unwrap_or_else(|| panic!("no token '{token}'"))
    }

    /// The file of a key.
    fn object(&self, token: &str, label: &str) -> PathBuf {
        let entries = std::fs::read_dir(self.directory(token)).unwrap().map(|entry| entry.unwrap().path());
        let named = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "pem")
                && std::fs::read_to_string(path).unwrap().contains(&format!("label = \"{label}\""))
        };
        entries.into_iter().find(named).unwrap_or_else(|| panic!("no object '{label}'"))
    }

    /// A new key can be made, found and destroyed.
    fn writes(&self, token: &str) {
        let third = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "third", "--id", "03"];
        let _ = self.tool(token, &third).ok();
        let _ = self.sign(token, "03").ok();
        for kind in ["privkey", "pubkey"] {
            let _ = self.tool(token, &["--delete-object", "--type", kind, "--id", "03"]).ok();
        }
    }
}

#[test]
fn whatever_is_in_place_of_an_object_loses_one_object_and_is_named() {
    let shelf = Shelf::new();
    for (what, damage) in DAMAGES {
        shelf.restore();
        let path = shelf.object("sensor", "first");
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        damage(&path);
        for indexed in [true, false] {
            if !indexed {
                std::fs::remove_file(shelf.directory("sensor").join("index")).unwrap();
            }
            let listing = shelf.tool("sensor", &["--list-objects"]).ok().says("second").says(&name);
            let _ = listing.says_nothing_of("first");
            let _ = shelf.sign("sensor", "02").ok();
            let _ = shelf.sign("sensor", "01").fails();
            let _ = shelf.sign_by_provider("sensor", "second").ok();
            let _ = shelf.sign_by_provider("sensor", "first").fails();
            let _ = shelf.sign("gateway", "01").ok();
        }
        // This makes the index anew.
        shelf.writes("sensor");
        println!("{what}: one object lost");
    }
}

#[test]
fn whatever_is_in_place_of_a_tokens_own_file_loses_one_token_and_is_named() {
    let shelf = Shelf::new();
    for (what, damage) in DAMAGES {
        shelf.restore();
        let path = shelf.directory("sensor").join("token.toml");
        damage(&path);
        let serial = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let _ = shelf.tool("", &["--list-slots"]).ok().says("gateway").says(&serial).says_nothing_of("sensor");
        let _ = shelf.sign("gateway", "01").ok();
        let _ = shelf.sign_by_provider("gateway", "only").ok();
        let _ = shelf.sign_by_provider("sensor", "second").fails();
        shelf.writes("gateway");
        // A new token does not take the lost one's slot.
        let _ = Token::new(&shelf.device, "new", "");
        println!("{what}: one token lost");
    }
    shelf.restore();
    let _ = shelf.sign("sensor", "01").ok();
}

#[test]
fn whatever_is_in_place_of_the_index_loses_nothing() {
    let shelf = Shelf::new();
    for (what, damage) in DAMAGES {
        shelf.restore();
        damage(&shelf.directory("sensor").join("index"));
        let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("first").says("second");
        let _ = shelf.sign("sensor", "01").ok();
        let _ = shelf.sign_by_provider("sensor", "second").ok();
        shelf.writes("sensor");
        let _ = shelf.sign("sensor", "01").ok();
        println!("{what}: nothing lost");
    }
}

#[test]
fn whatever_is_in_place_of_a_lock_keeps_nobody_from_reading() {
    let shelf = Shelf::new();
    for (what, damage) in DAMAGES {
        shelf.restore();
        damage(&shelf.directory("sensor").join("lock"));
        let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("first").says("second");
        let _ = shelf.sign("sensor", "01").ok();
        let new = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "third", "--id", "03"];
        let written = shelf.tool("sensor", &new);
        if !written.succeeded() {
            let _ = written.says("lock").fails();
        }
        shelf.writes("gateway");
        println!("{what}: nothing lost");
    }
}

#[test]
fn whatever_else_is_in_the_store_is_left_alone() {
    let shelf = Shelf::new();
    let store = shelf.device.store();
    std::fs::write(store.join("README"), "notes").unwrap();
    std::fs::write(store.join("0123456789abcdef"), "a file named like a token").unwrap();
    symlink("/dev/zero", store.join("fedcba9876543210")).unwrap();
    std::fs::create_dir(store.join("lost+found")).unwrap();
    std::fs::write(shelf.directory("sensor").join("notes.pem"), "no object's name").unwrap();
    std::fs::write(shelf.directory("sensor").join(".8a41.pem.swp"), "an editor's").unwrap();
    let _ = shelf.tool("", &["--list-slots"]).ok().says("sensor").says("gateway");
    shelf.writes("sensor");
    let _ = Token::new(&shelf.device, "new", "");
    for name in ["README", "0123456789abcdef", "fedcba9876543210", "lost+found"] {
        assert!(store.join(name).symlink_metadata().is_ok(), "{name}");
    }
    assert!(shelf.directory("sensor").join("notes.pem").exists());
}

/// Ends the process that holds a lock.
struct Holder(Child);

impl Holder {
    /// A process that takes a lock and keeps it.
    fn of(device: &Device, file: &Path) -> Self {
        let taken = device.path("taken");
        let _ = std::fs::remove_file(&taken);
        let mut command = device.command("flock");
        // What it runs ends with its input, and has no part in the lock.
        command.arg("--close").arg(file).args(["sh", "-c", "touch taken; cat"]).stdin(Stdio::piped());
        let holder = Self(command.spawn().expect("flock is installed"));
        while !taken.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        holder
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_lock_of_a_stopped_process_is_waited_for_within_bounds_and_of_a_dead_one_not_at_all() {
    let shelf = Shelf::new();
    let new = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "third", "--id", "03"];
    let holder = Holder::of(&shelf.device, &shelf.directory("sensor").join("lock"));
    holder.signal("-STOP");
    let refused = shelf.tool("sensor", &new).fails().says("lock").says("stays locked by process");
    let _ = refused.says("(flock)");
    let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("first");
    let _ = shelf.sign("sensor", "01").ok();
    shelf.writes("gateway");
    drop(holder);
    let _ = shelf.tool("sensor", &new).ok();
    // The same with the turn at the TPM: what needs none goes on.
    for kind in ["lock", "next"] {
        let turn = std::fs::read_dir(shelf.device.path("lock")).unwrap().map(|entry| entry.unwrap().path());
        let turn = turn.into_iter().find(|path| path.extension().is_some_and(|e| e == kind)).unwrap();
        let holder = Holder::of(&shelf.device, &turn);
        holder.signal("-STOP");
        let _ = shelf.sign("sensor", "01").fails().says("the TPM stays in use by process").says("(flock)");
        let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("first");
        drop(holder);
        let _ = shelf.sign("sensor", "01").ok();
    }
}

#[test]
fn a_clock_that_was_set_back_changes_nothing() {
    let shelf = Shelf::new();
    let future = SystemTime::now() + Duration::from_secs(50 * 365 * 86400);
    for directory in [shelf.directory("sensor"), shelf.directory("gateway")] {
        for entry in std::fs::read_dir(&directory).unwrap() {
            File::options().write(true).open(entry.unwrap().path()).unwrap().set_modified(future).unwrap();
        }
        File::open(&directory).unwrap().set_modified(future).unwrap();
    }
    let _ = shelf.sign("sensor", "01").ok();
    shelf.writes("sensor");
    let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("first").says("second").says_nothing_of("third");
    // A process that knows the old version of an object sees the new one, older though it is.
    let path = shelf.object("sensor", "first");
    shelf.device.enter();
    let module = cryptoki::context::Pkcs11::new(shelf.device.module()).unwrap();
    let locking = cryptoki::context::CInitializeFlags::OS_LOCKING_OK;
    module.initialize(cryptoki::context::CInitializeArgs::new(locking)).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    let labelled = |label: &str| {
        let label = cryptoki::object::Attribute::Label(label.into());
        session.find_objects(&[label, cryptoki::object::Attribute::Private(true)]).unwrap().len()
    };
    assert_eq!((labelled("first"), labelled("fifth")), (1, 0));
    let text = std::fs::read_to_string(&path).unwrap().replace("\"first\"", "\"fifth\"");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, text).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    std::fs::remove_file(shelf.directory("sensor").join("index")).unwrap();
    assert_eq!((labelled("first"), labelled("fifth")), (0, 1));
}

/// A script with a mount of its own.
fn with_mounts(device: &Device, script: &str) -> Output {
    let root = device.run(&["id", "-u"]).ok().stdout().trim() == "0";
    let mut command = device.command("unshare");
    command.args(if root { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
    command.env("KEYRIVET_LOG", "error").args(["sh", "-eu", "-c", script]).run()
}

/// Functions for such a script.
const SCRIPT: &str = r#"
tool() { timeout 20 pkcs11-tool --module "$PKCS11_MODULE_PATH" --token-label sensor "$@"; }
sign() { tool --sign --id "$1" --mechanism ECDSA-SHA256 -i openssl.cnf -o signature; }
new() { tool --keypairgen --key-type EC:prime256v1 --label "$1" --id "$1"; }
"#;

#[test]
fn a_full_disk_refuses_whatever_is_written_and_loses_nothing() {
    let shelf = Shelf::new();
    let script = r#"
        mount -t tmpfs -o size=256k none store
        cp -a whole/. store
        tool --write-object openssl.cnf --type data --label early
        made=0
        # A file of nothing takes what is left, but for a page, which a few keys fit into.
        dd if=/dev/zero of=store/filler bs=4096 2>/dev/null || true
        truncate -s -20k store/filler
        while new "$((made + 10))" >said 2>&1; do made=$((made + 1)); done
        cat said
        grep -q 'CKR_DEVICE_MEMORY' said
        grep -q 'No space left' said
        test "$made" -gt 0
        echo "made $made"
        sign 01; sign 02; sign "$((made + 9))"
        test "$(tool --list-objects --type privkey | grep -c 'Private Key')" = "$((made + 2))"
        # What failed left nothing behind.
        test "$(ls store/*/*.pem | wc -l)" = "$((made + 4))"
        test -z "$(find store -name '.new-*')"

        dd if=/dev/zero of=store/rest bs=4096 2>/dev/null || true
        refused() {
            "$@" >said 2>&1 && exit 1
            cat said
            grep -q 'No space left' said
        }
        so() { tool --login --login-type so --so-pin "$SO_PIN" "$@"; }
        refused tool --write-object openssl.cnf --type data --label text
        refused tool --set-id 77 --type privkey --id 02
        refused so --change-pin --new-pin 87654321
        refused pkcs11-tool --module "$PKCS11_MODULE_PATH" --init-token --slot 2 --label third --so-pin "$SO_PIN"
        # A key has the ID that it had.
        sign 01; sign 02
        test "$(ls store/*/*.pem | wc -l)" = "$((made + 4))"
        test -z "$(find store -name '.new-*')"
        # To remove an object takes no room, but half of a pair: its file stays, and is written anew.
        refused tool --delete-object --type pubkey --id 02
        tool --delete-object --type data --label early
        tool --list-objects | grep early && exit 1
        sign 02

        # Room that is made is used.
        rm store/filler store/rest
        # The PIN is still the one that it was.
        so --change-pin --new-pin 87654321
        new 99
        sign 99
        sign 01
    "#;
    let _ = with_mounts(&shelf.device, &format!("SO_PIN={SO_PIN}{SCRIPT}{script}")).ok().says("made ");
}

#[test]
fn a_store_mounted_read_only_is_used_and_says_so_when_it_is_written_to() {
    let shelf = Shelf::new();
    let script = r#"
        mount --bind store store
        mount -o remount,bind,ro store
        sign 01
        tool --list-objects | grep -q first
        for job in 'new 03' 'tool --delete-object --type privkey --id 01'; do
            $job >said 2>&1 && exit 1
            cat said
            grep -q 'may not write' said
        done
        sign 01
    "#;
    let _ = with_mounts(&shelf.device, &format!("{SCRIPT}{script}")).ok();
    shelf.writes("sensor");
}

/// What stops a writer at every length of a file.
#[test]
fn a_limit_on_the_size_of_files_refuses_new_objects_and_loses_none() {
    let shelf = Shelf::new();
    // The signal would end the tool as it ends any program that does not ignore it.
    let script = r#"
        trap '' XFSZ
        for size in $(seq 0 100 1000); do
            if prlimit --fsize="$size" sh -c "$SCRIPT new 03" >/dev/null 2>&1; then
                echo "made with $size bytes"
                sign 03
                for kind in privkey pubkey; do tool --delete-object --type $kind --id 03; done
            else
                echo "refused with $size bytes"
                tool --list-objects | grep 'label: *03' && exit 1
            fi
        done
        true
    "#;
    let mut command = shelf.device.command("sh");
    command.env("SCRIPT", SCRIPT).args(["-c", &format!("{SCRIPT}{script}")]);
    let _ = command.run().ok().says("refused with 0 bytes").says("made with 1000 bytes");
    let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("first").says("second");
    let _ = shelf.sign("sensor", "01").ok();
    shelf.writes("sensor");
}

#[test]
fn a_backup_that_is_copied_over_a_living_store_hides_no_newer_key() {
    let shelf = Shelf::new();
    shelf.restore();
    // The copy is an hour old.
    let _ = shelf.device.run(&["sh", "-c", "touch -d '1 hour ago' whole/*"]).ok();
    let newer = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "newer", "--id", "09"];
    let _ = shelf.tool("sensor", &newer).ok();
    let _ = shelf.device.run(&["cp", "-a", "whole/.", "store/"]).ok();
    for time in ["restored", "with an index that was made anew"] {
        let _ = shelf.tool("sensor", &["--list-objects"]).ok().says("newer").says("first");
        let _ = shelf.sign("sensor", "09").ok();
        let _ = shelf.sign_by_provider("sensor", "newer").ok();
        shelf.writes("sensor");
        println!("{time}: nothing hidden");
    }
}
