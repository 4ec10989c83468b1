//! The thread that works on the store while the broker goes on: it writes what has gathered, learns what others
//! changed, and fetches configurations, commands and the events that came by HTTP.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keyrivet_registry::{Change, Command, Config, DeviceName, Error, Event, Fleet, Refusal, Timestamp};
use parking_lot::Mutex;

use crate::ffi::thread;

/// How often it asks the store: what changes is heard of within a second, the broker's own pace included.
const PACE: Duration = Duration::from_millis(250);
/// How often while there is more than it could take.
const BRISK_PACE: Duration = Duration::from_millis(20);
/// How many seconds a command is worth delivering.
const COMMAND_LIFE: i64 = 5;
/// Events fetched at once.
const BATCH: usize = 500;
/// Devices whose configuration is asked for again at once.
const OWED_BATCH: usize = 100;

/// What the broker's thread asks for.
pub(crate) enum Task {
    /// To fetch a device's newest configuration, which somebody waits for.
    Config(DeviceName),
    /// To note what became of a command.
    CommandDone(i64, &'static str),
}

/// What the broker's thread is told.
pub(crate) enum News {
    /// Somebody changed something.
    Changed(Change),
    /// A configuration that was asked for.
    Config(DeviceName, Config),
    /// A command to be delivered.
    Command(Command),
    /// An event that came by HTTP.
    Event(Event),
    /// The store does not answer, or does again.
    Store(Result<(), String>),
}

#[derive(Default)]
struct Desk {
    any: AtomicBool,
    /// The broker asks for news: it is up.
    open: AtomicBool,
    /// It ends.
    ending: AtomicBool,
    waiting: Mutex<Waiting>,
    /// Whose configuration was asked for and is not fetched yet: one fetch is enough for all who have asked by then.
    asked: Mutex<HashSet<DeviceName>>,
}

/// What the broker's thread has not been told yet.
#[derive(Default)]
struct Waiting {
    news: Vec<News>,
    /// The newest of each device.
    configs: HashMap<DeviceName, Config>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.news.is_empty() && self.configs.is_empty()
    }

    fn into_news(self) -> Vec<News> {
        let configs = self.configs.into_iter().map(|(device, config)| News::Config(device, config));
        self.news.into_iter().chain(configs).collect()
    }
}

impl Desk {
    fn put(&self, news: impl IntoIterator<Item = News>) {
        let mut waiting = self.waiting.lock();
        for news in news {
            match news {
                News::Config(device, config) => drop(waiting.configs.insert(device, config)),
                other => waiting.news.push(other),
            }
        }
        self.any.store(!waiting.is_empty(), Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn is_clear(&self) -> bool {
        self.waiting.lock().is_empty()
    }
}

/// The broker's side of the thread.
pub(crate) struct Keeper {
    tasks: Sender<Task>,
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start(fleet: Arc<Fleet>) -> Result<Self, String> {
        let (tasks, given) = channel();
        let desk = Arc::new(Desk::default());
        let (owed, handed) = (Owed::default(), BTreeMap::new());
        let work = Work { fleet, desk: Arc::clone(&desk), owed, handed, well: true, more: false };
        let started = thread::start("keyrivet", move || work.run(&given));
        let thread = started.map_err(|error| format!("a thread could not be started: {error}"))?;
        Ok(Self { tasks, desk, thread })
    }

    /// Asks for something.
    pub(crate) fn ask(&self, task: Task) {
        if let Task::Config(device) = &task
            && !self.desk.asked.lock().insert(device.clone())
        {
            return;
        }
        // Only after a panic there would be nobody: the store is not written any more then, and the log says so.
        let _ = self.tasks.send(task);
    }

    /// Takes what there is to be told. Costs next to nothing while there is nothing.
    pub(crate) fn news(&self) -> Vec<News> {
        if !self.desk.open.load(Ordering::Relaxed) {
            self.desk.open.store(true, Ordering::Release);
        }
        // Asked after each message: to read costs less than to write.
        if !self.desk.any.load(Ordering::Relaxed) || !self.desk.any.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.desk.waiting.lock()).into_news()
    }

    /// Ends the thread; answers what nobody was told.
    pub(crate) fn stop(self) -> Vec<News> {
        self.desk.ending.store(true, Ordering::Release);
        drop(self.tasks);
        let _ = self.thread.join();
        std::mem::take(&mut *self.desk.waiting.lock()).into_news()
    }

    /// Whether the thread still works.
    pub(crate) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }
}

/// What the store could not give, and is asked for again: devices by what they wait for.
#[derive(Default)]
struct Owed {
    configs: HashSet<DeviceName>,
    commands: HashSet<DeviceName>,
}

struct Work {
    fleet: Arc<Fleet>,
    desk: Arc<Desk>,
    owed: Owed,
    /// Commands that the broker's thread has got already, and when they were sent.
    handed: BTreeMap<i64, Timestamp>,
    well: bool,
    /// There were more events than were taken.
    more: bool,
}

impl Work {
    fn run(mut self, tasks: &Receiver<Task>) {
        let mut next = Instant::now();
        loop {
            // However many tasks there are.
            if Instant::now() >= next {
                self.look();
                next = Instant::now() + if self.more { BRISK_PACE } else { PACE };
            }
            match tasks.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(task) => self.perform(task),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody would read what is learnt now.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Config(_) if self.desk.ending.load(Ordering::Acquire) => {}
            Task::Config(device) => {
                let _ = self.desk.asked.lock().remove(&device);
                if let Err(why) = self.config(device) {
                    self.tell(Err(why));
                }
            }
            Task::CommandDone(id, outcome) => {
                let done = self.fleet.store().finish_command(id, outcome);
                self.tell(done.map(drop).map_err(|error| error.to_string()));
            }
        }
    }

    fn look(&mut self) {
        // Before the changes, which are put where nothing may lie when events are taken.
        let events = self.events();
        let written = self.fleet.write(Timestamp::now());
        let changes = self.changes();
        let commands = self.commands();
        let done = changes.and(commands).and(written).and(events);
        if done.is_ok() && !self.owed.configs.is_empty() {
            // Who waited may have gone, and whether the store is well shows in what comes of it.
            let again: Vec<_> = self.owed.configs.iter().take(OWED_BATCH).cloned().collect();
            for device in &again {
                let _ = self.owed.configs.remove(device);
            }
            self.desk.put(again.into_iter().map(|device| News::Changed(Change::Config(device))));
            return;
        }
        self.tell(done.map_err(|error| error.to_string()));
    }

    /// Fetches a device's configuration, now or when the store can give it.
    fn config(&mut self, device: DeviceName) -> Result<(), String> {
        match self.fleet.deliver_config(&device, Timestamp::now()) {
            Ok(config) => self.desk.put([News::Config(device, config)]),
            // Nobody has set one yet, or the device is gone.
            Err(Refusal::NoConfig { .. } | Refusal::DeviceUnknown { .. }) => {}
            Err(refusal) => {
                let _ = self.owed.configs.insert(device);
                return Err(full(&refusal));
            }
        }
        Ok(())
    }

    fn changes(&mut self) -> keyrivet_registry::Result<()> {
        for change in self.fleet.learn()? {
            match change {
                Change::Command(device) => drop(self.owed.commands.insert(device)),
                change => self.desk.put([News::Changed(change)]),
            }
        }
        Ok(())
    }

    fn commands(&mut self) -> keyrivet_registry::Result<()> {
        let since = Timestamp::now().plus_seconds(-COMMAND_LIFE);
        self.handed.retain(|_, sent| *sent >= since);
        for device in self.owed.commands.iter().cloned().collect::<Vec<_>>() {
            let waiting = match self.fleet.store().waiting_commands(&device, since) {
                // The device was deleted meanwhile.
                Err(Error::Refused(Refusal::DeviceUnknown { .. })) => Vec::new(),
                waiting => waiting?,
            };
            let _ = self.owed.commands.remove(&device);
            for command in waiting {
                if self.handed.insert(command.id, command.sent).is_none() {
                    self.desk.put([News::Command(command)]);
                }
            }
        }
        Ok(())
    }

    /// What is taken here is in no store any more: only what the broker will publish, and no more than it keeps up with.
    fn events(&mut self) -> keyrivet_registry::Result<()> {
        if self.desk.is_open() && self.desk.is_clear() {
            let events = self.fleet.store().take_events(BATCH)?;
            self.more = events.len() == BATCH;
            self.desk.put(events.into_iter().map(News::Event));
        }
        Ok(())
    }

    /// Says once that the store fails, and once that it is well again.
    fn tell(&mut self, outcome: Result<(), String>) {
        if outcome.is_ok() != self.well {
            self.well = outcome.is_ok();
            self.desk.put([News::Store(outcome)]);
        }
    }
}

/// A refusal with what only the operator may know.
pub(crate) fn full(refusal: &Refusal) -> String {
    match refusal.for_the_operator() {
        Some(more) => format!("{refusal} ({more})"),
        None => refusal.to_string(),
    }
}
