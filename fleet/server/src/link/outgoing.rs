//! What is on its way to the broker. The client library does not tell what became of a message; but it takes messages in
//! their order, and tells which number it gives to the next one and which number the broker has acknowledged.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event, EventLoop, Outgoing, Packet, Publish, QoS, Request};
use tokio::sync::oneshot;

/// Resolves when the broker has a message; fails when it was lost with its connection.
pub(super) type Told = oneshot::Receiver<()>;

/// Where messages are handed over.
pub(super) struct Publisher {
    client: AsyncClient,
    /// Held while one is handed over, so that they are noted in the order in which the library takes them.
    turn: tokio::sync::Mutex<()>,
    /// Those who are to be told of the messages that were handed over and not sent yet.
    waiting: Mutex<VecDeque<oneshot::Sender<()>>>,
}

/// What was sent by the connection that there is, and not acknowledged yet.
#[derive(Default)]
pub(super) struct Sent {
    by_number: HashMap<u16, oneshot::Sender<()>>,
    /// Its number is still in use, so that the library keeps it until that one is acknowledged.
    held_up: Option<oneshot::Sender<()>>,
}

impl Publisher {
    pub(super) fn new(client: AsyncClient) -> Self {
        Self { client, turn: tokio::sync::Mutex::default(), waiting: Mutex::default() }
    }

    /// Hands a message over. Who drops what is answered does not mind: should the message be lost, [`Sent::lost`] answers it.
    pub(super) async fn publish(&self, topic: String, qos: QoS, data: impl Into<Vec<u8>>) -> Told {
        let (tell, told) = oneshot::channel();
        let _turn = self.turn.lock().await;
        self.waiting.lock().push_back(tell);
        if self.client.publish(topic, qos, false, data).await.is_err() {
            // It has wildcards in its topic; the library did not take it.
            drop(self.waiting.lock().pop_back());
        }
        told
    }
}

impl Sent {
    /// Follows what the library tells.
    pub(super) fn follow(&mut self, publisher: &Publisher, event: &Event) {
        let next = || publisher.waiting.lock().pop_front();
        match event {
            Event::Outgoing(Outgoing::AwaitAck(_)) => self.held_up = next(),
            Event::Outgoing(Outgoing::Publish(number)) => match self.held_up.take().or_else(next) {
                // Of QoS 0 nobody hears anything more.
                Some(tell) if *number == 0 => drop(tell.send(())),
                Some(tell) => drop(self.by_number.insert(*number, tell)),
                None => {}
            },
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(tell) = self.by_number.remove(&ack.pkid) {
                    let _ = tell.send(());
                }
            }
            _ => {}
        }
    }

    /// The connection is gone. Who minds is told; the messages that nobody minds are answered.
    ///
    /// All that the library holds is taken from it: it would forget it at the next connection, if the broker begins a new session, and
    /// a message whose number was still in use would even keep it from sending anything.
    pub(super) fn lost(&mut self, publisher: &Publisher, events: &mut EventLoop) -> Vec<Publish> {
        let held_up = events.state.collision.take().map(|message| (message, self.held_up.take()));
        let mut lost: Vec<_> = held_up.into_iter().collect();
        for request in events.pending.drain(..) {
            let Request::Publish(message) = request else { continue };
            let tell = match message.pkid {
                // It was not sent yet.
                0 => publisher.waiting.lock().pop_front(),
                number => self.by_number.remove(&number),
            };
            lost.push((message, tell));
        }
        *self = Self::default();
        lost.into_iter().filter(|(_, tell)| tell.as_ref().is_none_or(|it| it.is_closed())).map(|it| it.0).collect()
    }
}
