//! The store's slow work, on a thread beside the broker's: it writes what has gathered, learns what others changed, and
//! fetches configurations, commands and the events that came by HTTP.
//!
//! The thread ends with each look, after milliseconds: while a process has two, the kernel takes more care of its
//! descriptors in each system call, which was 4 % of all that a broker does for a message.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;

use keyrivet_registry::{Change, Command, Config, DeviceName, Error, Event, Fleet, Refusal, Timestamp};
use parking_lot::Mutex;

use crate::ffi::thread;

/// How often it asks the store, in microseconds: what changes is heard of within a second, the broker's own pace included.
const PACE: u64 = 250_000;
/// How often while there is more than it could take.
const BRISK_PACE: u64 = 20_000;
/// How many seconds a command is worth delivering.
const COMMAND_LIFE: i64 = 5;
/// Events fetched at once.
const BATCH: usize = 500;
/// Devices whose configuration is asked for again at once.
const OWED_BATCH: usize = 100;

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

/// What the broker's thread asks for.
#[derive(Default)]
struct Tasks {
    /// To fetch the newest configuration of these devices, which somebody waits for.
    configs: HashSet<DeviceName>,
    /// To note what became of these commands.
    done: Vec<(i64, &'static str)>,
}

/// The broker's side.
pub(crate) struct Keeper {
    /// Locked by the thread while it runs.
    work: Arc<Mutex<Work>>,
    thread: Option<JoinHandle<()>>,
    tasks: Tasks,
    /// When the last look began, and after how many microseconds the next one is due.
    looked: Option<Timestamp>,
    pace: u64,
}

impl Keeper {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        let (owed, handed, news) = (Owed::default(), BTreeMap::new(), Vec::new());
        let work = Work { fleet, tasks: Tasks::default(), look: false, owed, handed, news, well: true, more: false };
        Self { work: Arc::new(Mutex::new(work)), thread: None, tasks: Tasks::default(), looked: None, pace: PACE }
    }

    /// Asks for a device's newest configuration.
    pub(crate) fn fetch_config(&mut self, device: DeviceName) {
        let _ = self.tasks.configs.insert(device);
    }

    /// Says what became of a command.
    pub(crate) fn command_done(&mut self, id: i64, outcome: &'static str) {
        self.tasks.done.push((id, outcome));
    }

    /// Answers what the thread has found, if it has ended, and starts it when there is something to do. The broker calls
    /// this after each message: it costs next to nothing in between.
    pub(crate) fn turn(&mut self, now: Timestamp) -> Vec<News> {
        let mut news = Vec::new();
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            let outcome = thread.join();
            let mut work = self.work.lock();
            if outcome.is_err() {
                work.tell(Err("the thread that works on the store has failed: report this".to_owned()));
            }
            news = std::mem::take(&mut work.news);
            self.pace = if work.more { BRISK_PACE } else { PACE };
        }
        if self.thread.is_some() {
            return news;
        }
        let busy = !self.tasks.configs.is_empty() || !self.tasks.done.is_empty();
        // However the clock is set meanwhile.
        let due = self.looked.is_none_or(|looked| looked.micros().abs_diff(now.micros()) >= self.pace);
        if due {
            self.looked = Some(now);
        }
        if busy || due {
            self.start(due);
        }
        news
    }

    fn start(&mut self, look: bool) {
        let mut work = self.work.lock();
        work.look = look;
        work.tasks.configs.extend(self.tasks.configs.drain());
        work.tasks.done.append(&mut self.tasks.done);
        drop(work);
        let work = Arc::clone(&self.work);
        match thread::start("keyrivet", move || work.lock().run()) {
            Ok(thread) => self.thread = Some(thread),
            // What is to be done stays to be done.
            Err(error) => self.work.lock().tell(Err(format!("a thread could not be started: {error}"))),
        }
    }

    /// Waits for the thread, and does what must not be left; answers what nobody was told.
    pub(crate) fn stop(self) -> Vec<News> {
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
        let mut work = self.work.lock();
        work.tasks.done.extend(self.tasks.done);
        work.finish_commands();
        std::mem::take(&mut work.news)
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
    tasks: Tasks,
    /// It is time for a look at the store.
    look: bool,
    owed: Owed,
    /// Commands that the broker's thread has got already, and when they were sent.
    handed: BTreeMap<i64, Timestamp>,
    /// What the broker's thread has not been told yet.
    news: Vec<News>,
    well: bool,
    /// There were more events than were taken.
    more: bool,
}

impl Work {
    fn run(&mut self) {
        for device in std::mem::take(&mut self.tasks.configs) {
            if let Err(why) = self.config(device) {
                self.tell(Err(why));
            }
        }
        self.finish_commands();
        if std::mem::take(&mut self.look) {
            self.look();
        }
    }

    fn finish_commands(&mut self) {
        for (id, outcome) in std::mem::take(&mut self.tasks.done) {
            let done = self.fleet.store().finish_command(id, outcome);
            self.tell(done.map(drop).map_err(|error| error.to_string()));
        }
    }

    fn look(&mut self) {
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
            self.news.extend(again.into_iter().map(|device| News::Changed(Change::Config(device))));
            return;
        }
        self.tell(done.map_err(|error| error.to_string()));
    }

    /// Fetches a device's configuration, now or when the store can give it.
    fn config(&mut self, device: DeviceName) -> Result<(), String> {
        match self.fleet.deliver_config(&device, Timestamp::now()) {
            Ok(config) => self.news.push(News::Config(device, config)),
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
                change => self.news.push(News::Changed(change)),
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
                    self.news.push(News::Command(command));
                }
            }
        }
        Ok(())
    }

    /// What is taken here is in no store any more. The broker has published what was taken before: it asks for no look
    /// until it has heard of the last one.
    fn events(&mut self) -> keyrivet_registry::Result<()> {
        let events = self.fleet.store().take_events(BATCH)?;
        self.more = events.len() == BATCH;
        self.news.extend(events.into_iter().map(News::Event));
        Ok(())
    }

    /// Says once that the store fails, and once that it is well again.
    fn tell(&mut self, outcome: Result<(), String>) {
        if outcome.is_ok() != self.well {
            self.well = outcome.is_ok();
            self.news.push(News::Store(outcome));
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
