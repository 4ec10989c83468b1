//! The registry in mosquitto: devices come in by their tokens or certificates, and speak on their own topics only.
//!
//! `ffi` is the broker's side, and the only place with unsafe code. Below it everything is safe: `plugin` answers the
//! broker's questions by the rules of `keyrivet-registry`; `clients` knows who is connected and has subscribed to what;
//! `keeper` is the thread that reads and writes the store, so that the broker's one thread need not wait for it.
//!
//! What a device publishes on `/devices/D/events` or `state` is published again on `registries/G/devices/D/...`; the
//! original reaches nobody. What goes to a device is addressed to its connection, because two registries may each have
//! a device of that name, with the same topics.
#![deny(unsafe_code)]

mod answer;
mod clients;
mod delivery;
mod ffi;
mod keeper;
mod options;
mod plugin;
