//! The options of the configuration file: `plugin_opt_store`, `plugin_opt_events`.

/// What the configuration file says.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where the registry is: a file, or a URL of PostgreSQL.
    pub(crate) store: String,
    /// Under which topics events and states appear.
    pub(crate) events: EventTopics,
}

/// Under which topics events and states appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventTopics {
    /// `registries/G/devices/D/events`.
    ByRegistry,
    /// `projects/P/locations/R/registries/G/devices/D/events`: where registries of several projects have the same name.
    ByProject,
}

impl Options {
    /// Reads them; says what is wrong and what would be right.
    pub(crate) fn read(pairs: &[(String, String)]) -> Result<Self, String> {
        let mut store = None;
        let mut events = EventTopics::ByRegistry;
        for (name, value) in pairs {
            match (name.as_str(), value.as_str()) {
                ("store", value) => store = Some(value.to_owned()),
                ("events", "registries") => events = EventTopics::ByRegistry,
                ("events", "projects") => events = EventTopics::ByProject,
                ("events", other) => return Err(format!("plugin_opt_events {other}: write registries or projects")),
                (other, _) => return Err(format!("plugin_opt_{other} is unknown: there are store and events")),
            }
        }
        let store = store.filter(|store| !store.is_empty()).ok_or(
            "plugin_opt_store is missing: name the registry's database, as keyrivet-server does: \
             a file, or postgres://USER@HOST/DATABASE",
        )?;
        Ok(Self { store, events })
    }
}
