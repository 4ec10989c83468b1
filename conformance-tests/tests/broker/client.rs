//! A device's MQTT client in the test itself.

use std::time::Duration;

use rumqttc::{Client, Connection, Event, Incoming, MqttOptions, QoS, SubscribeFilter};

use super::{Key, World};

/// A client by rumqttc, and what it has got so far.
pub struct Mqtt {
    client: Client,
    connection: Connection,
    messages: Vec<(String, String)>,
    acknowledged: usize,
    expected: usize,
}

impl Mqtt {
    pub fn connect(world: &World<'_>, client_id: &str, key: &Key) -> Self {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", world.port_number());
        let _ = options.set_credentials("unused", key.token()).set_keep_alive(Duration::from_secs(30));
        let _ = options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, connection) = Client::new(options, 10);
        let mut this = Self { client, connection, messages: Vec::new(), acknowledged: 0, expected: 0 };
        this.until(|event, _| matches!(event, Event::Incoming(Incoming::ConnAck(_))));
        this
    }

    pub fn subscribe(&mut self, topic: &str) {
        self.client.subscribe(topic, QoS::AtLeastOnce).unwrap();
        self.until(|event, _| matches!(event, Event::Incoming(Incoming::SubAck(_))));
    }

    /// In one packet.
    pub fn subscribe_all(&mut self, topics: impl Iterator<Item = String>) {
        self.client.subscribe_many(topics.map(|topic| SubscribeFilter::new(topic, QoS::AtLeastOnce))).unwrap();
        self.until(|event, _| matches!(event, Event::Incoming(Incoming::SubAck(_))));
    }

    pub fn publish(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
        self.expected += 1;
        self.flush();
    }

    pub fn attach(&mut self, device: &str, token: Option<&str>) {
        let payload = token.map_or("{}".to_owned(), |token| format!(r#"{{"authorization":"{token}"}}"#));
        self.publish(&format!("/devices/{device}/attach"), &payload);
    }

    /// Waits until everything published is acknowledged.
    pub fn flush(&mut self) {
        while self.acknowledged < self.expected {
            self.until(|event, _| matches!(event, Event::Incoming(Incoming::PubAck(_))));
        }
    }

    pub fn wait_for(&mut self, text: &str) {
        while !self.seen().contains(text) {
            self.until(|event, _| matches!(event, Event::Incoming(Incoming::Publish(_))));
        }
    }

    /// Takes the first message on a topic that holds a text, and answers its payload.
    pub fn wait_for_message(&mut self, topic: &str, text: &str) -> String {
        loop {
            let found = self.messages.iter().position(|(on, payload)| on == topic && payload.contains(text));
            if let Some(found) = found {
                return self.messages.remove(found).1;
            }
            self.until(|event, _| matches!(event, Event::Incoming(Incoming::Publish(_))));
        }
    }

    pub fn seen(&self) -> String {
        self.messages.iter().map(|(topic, payload)| format!("{topic} {payload}\n")).collect()
    }

    /// Waits until the broker has closed the connection.
    pub fn wait_for_end(&mut self) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while let Ok(Ok(_)) = self.connection.recv_timeout(Duration::from_secs(10)) {}
        assert!(std::time::Instant::now() < end, "the connection goes on");
    }

    fn until(&mut self, is_it: impl Fn(&Event, &Self) -> bool) {
        loop {
            let Ok(event) = self.connection.recv_timeout(Duration::from_secs(10)) else {
                panic!("nothing comes; so far:\n{}", self.seen())
            };
            let event = event.expect("the connection stands");
            match &event {
                Event::Incoming(Incoming::PubAck(_)) => self.acknowledged += 1,
                Event::Incoming(Incoming::Publish(message)) => {
                    let payload = String::from_utf8_lossy(&message.payload).into_owned();
                    self.messages.push((message.topic.clone(), payload));
                }
                _ => {}
            }
            if is_it(&event, self) {
                return;
            }
        }
    }
}
