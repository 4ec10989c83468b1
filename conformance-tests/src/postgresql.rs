//! A PostgreSQL cluster of a test's own, in a temporary folder, on a Unix socket.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::{Run as _, see_off};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A cluster that is ended, by its process id, and removed when this is dropped.
pub struct Cluster {
    folder: PathBuf,
    options: Vec<String>,
    server: Child,
}

impl Cluster {
    /// Starts one with an empty database. What it writes is not synced to the disk: it does not outlive the test.
    pub fn start() -> Self {
        Self::start_with(&["-c", "fsync=off"])
    }

    /// Starts one with these options of the server.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("krv-pg-").tempdir().expect("the cluster gets a folder").keep();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("the folder is ours");
        let data = folder.join("data");
        let initdb =
            ["--no-sync", "--wal-segsize=1", "-A", "trust", "-U", "keyrivet", "-E", "UTF8", "--no-locale", "-D"];
        let _ = command(&folder, "initdb").args(initdb).arg(&data).run().ok();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let server = spawn(&folder, &options);
        let mut this = Self { folder, options, server };
        this.wait();
        this
    }

    /// Ends it at once, and starts it again on what it had stored.
    pub fn restart(&mut self) {
        self.stop();
        self.server = spawn(&self.folder, &self.options);
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = !matches!(self.server.try_wait(), Ok(None));
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "postgres does not answer:\n{}", log());
            sleep(PAUSE);
        }
    }

    /// SIGQUIT: at once, without writing what nobody reads any more.
    fn stop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        see_off(&mut self.server, PATIENCE);
    }

    /// Stops all of its processes where they are, or lets them go on. Its system goes on for it meanwhile.
    pub fn freeze(&self, frozen: bool) {
        let id = self.server.id().to_string();
        let workers = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("the server runs");
        let mut kill = Command::new("kill");
        kill.arg(if frozen { "-STOP" } else { "-CONT" }).arg(&id).args(workers.split_whitespace());
        let _ = kill.run().ok();
    }

    /// What a client is told to reach it.
    pub fn url(&self) -> String {
        format!("host={} user=keyrivet dbname=postgres", self.folder.display())
    }

    /// Runs statements in it, as its superuser.
    pub fn sql(&self, statements: &str) {
        let mut psql = Command::new(binaries().join("psql"));
        let _ = psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", &self.url(), "-c", statements]).run().ok();
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    fn answers(&self) -> bool {
        let mut probe = Command::new(binaries().join("pg_isready"));
        probe.arg("-q").arg("-h").arg(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(folder: &Path, options: &[String]) -> Child {
    let mut server = command(folder, "postgres");
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).args(["-c", "listen_addresses="]).args(options);
    let log = std::fs::File::create(folder.join("log")).expect("the log's folder is there");
    let copy = log.try_clone().expect("a file can be shared");
    server.stdin(Stdio::null()).stdout(log).stderr(copy).spawn().expect("postgres starts")
}

/// PostgreSQL refuses to run as root, so that root runs it as the user of Debian's package.
fn command(folder: &Path, program: &str) -> Command {
    let program = binaries().join(program);
    if std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid()) != 0 {
        return Command::new(program);
    }
    let id = |flag| {
        let id = Command::new("id").args([flag, "postgres"]).run().ok().stdout();
        id.trim().parse::<u32>().expect("id prints a number")
    };
    let (user, group) = (id("-u"), id("-g"));
    chown(folder, Some(user), Some(group)).expect("root may give a folder away");
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]).arg(program);
    command.current_dir(folder);
    command
}

/// Debian keeps the server's programs out of everybody's path, by version; the newest counts.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let paths = versions.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.join("bin/postgres").exists());
    paths.max_by_key(number).expect("postgresql is installed").join("bin")
}
