//! Two RabbitMQ nodes, clustered on 127.0.0.1, whose MQTT clients are judged by hooks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::program::{Output, Run as _, see_off};
use crate::server::{Server, free_port};

/// A node takes ten seconds to start, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
const PAUSE: Duration = Duration::from_millis(500);

/// A cluster that is ended and removed when this is dropped.
pub struct RabbitMq {
    folder: PathBuf,
    port_mapper: u16,
    nodes: Vec<Node>,
    _epmd: Server,
}

struct Node {
    process: Child,
    mqtt: u16,
}

impl RabbitMq {
    /// Starts two nodes that ask the hooks below this address, and then their own users: `guest`, `guest`.
    pub fn start(hooks: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("krv-mq-").tempdir().expect("the cluster gets a folder").keep();
        let port_mapper = free_port();
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &port_mapper.to_string()]);
        let epmd = Server::start(&mut epmd, port_mapper, &folder.join("epmd.log"));
        let mut this = Self { folder, port_mapper, nodes: Vec::new(), _epmd: epmd };
        for number in 1..=2 {
            let mqtt = free_port();
            let process = this.spawn(number, mqtt, hooks);
            this.nodes.push(Node { process, mqtt });
            this.wait(number);
        }
        this
    }

    /// The MQTT port of the first or second node, from 0.
    pub fn mqtt_port(&self, node: usize) -> u16 {
        self.nodes[node].mqtt
    }

    /// `rabbitmqctl` on the first node.
    pub fn control(&self, words: &[&str]) -> Output {
        self.program("rabbitmqctl", 1).args(words).run()
    }

    fn spawn(&self, number: usize, mqtt: u16, hooks: &str) -> Child {
        let file = |name: &str| self.folder.join(format!("{name}{number}"));
        let configuration = format!(
            "listeners.tcp.default = 127.0.0.1:{}\nloopback_users = none\nlog.console = true\nlog.console.level = info\n\
             mqtt.listeners.tcp.default = 127.0.0.1:{mqtt}\nmqtt.allow_anonymous = false\n\
             cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = krv1@localhost\n\
             cluster_formation.classic_config.nodes.2 = krv2@localhost\n\
             auth_backends.1 = http\nauth_backends.2 = internal\nauth_http.http_method = post\n\
             auth_http.user_path = {hooks}/user\nauth_http.vhost_path = {hooks}/vhost\n\
             auth_http.resource_path = {hooks}/resource\nauth_http.topic_path = {hooks}/topic\n",
            free_port()
        );
        std::fs::write(file("rabbitmq.conf").with_extension("conf"), configuration).expect("a file");
        std::fs::write(file("plugins"), "[rabbitmq_mqtt,rabbitmq_auth_backend_http].\n").expect("a file");
        let log = std::fs::File::create(file("log")).expect("the log's folder is there");
        let copy = log.try_clone().expect("a file can be shared");
        let mut command = self.program("rabbitmq-server", number);
        command.env("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf").with_extension("conf"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins"));
        command
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.folder.join("logs"));
        command.env("RABBITMQ_DIST_PORT", free_port().to_string());
        command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn().expect("RabbitMQ starts")
    }

    /// A program of the package, without its wrapper, which would change the user.
    fn program(&self, name: &str, number: usize) -> Command {
        let mut command = Command::new(Path::new("/usr/lib/rabbitmq/bin").join(name));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", &self.folder)
            .env("LANG", "C.UTF-8");
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null").env("RABBITMQ_NODENAME", format!("krv{number}@localhost"));
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1").env("ERL_EPMD_PORT", self.port_mapper.to_string());
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        command
    }

    fn wait(&mut self, number: usize) {
        let deadline = Instant::now() + PATIENCE;
        let ready = |this: &Self| {
            let wait = ["-q", "await_startup", "--timeout", "20"];
            this.program("rabbitmqctl", number).args(wait).run().succeeded()
        };
        while !ready(self) {
            let ended = !matches!(self.nodes[number - 1].process.try_wait(), Ok(None));
            let log = || std::fs::read_to_string(self.folder.join(format!("log{number}"))).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "RabbitMQ does not answer:\n{}", log());
            sleep(PAUSE);
        }
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate().rev() {
            // The script waits for the virtual machine, whose process id it wrote down.
            let pid = self.folder.join(format!("mnesia/krv{}@localhost.pid", index + 1));
            if let Ok(pid) = std::fs::read_to_string(pid) {
                let _ = Command::new("kill").arg(pid.trim()).status();
            }
            see_off(&mut node.process, PATIENCE);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
