//! Gets of peers' objects. Those who want the same whole object at the same time share one fetch, as long as it can be
//! held in memory meanwhile; longer objects are fetched by each, in constant memory.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proxystore::Result;
use proxystore::wire::{Answer, Fault, Name, Request, Stat};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Peers;
use super::dial::lock;
use super::parts::{Begun, PART, Parts};
use crate::body::Body;
use crate::service::Reply;

/// Room for shared fetches is counted in units of so many bytes.
pub(super) const UNIT: u64 = 1 << 10;

/// Fetches that are under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Name, watch::Receiver<Flight>>>);

/// One fetch, as far as it got.
#[derive(Debug, Default)]
struct Flight {
    head: Option<Head>,
    pieces: VecDeque<Bytes>,
    end: Option<Result<(), Fault>>,
    /// Given back when nobody reads any more.
    room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone)]
enum Head {
    Object(Stat),
    Absent,
    /// It is too long to be shared.
    Apart,
}

/// Who asks first fetches, and the others follow.
enum Part {
    Leader(watch::Sender<Flight>),
    Follower(watch::Receiver<Flight>),
}

impl Flights {
    fn join(&self, name: &Name) -> Part {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(name)
            && flight.has_changed().is_ok()
        {
            return Part::Follower(flight.clone());
        }
        let (leader, flight) = watch::channel(Flight::default());
        flights.insert(name.clone(), flight);
        Part::Leader(leader)
    }

    fn leave(&self, name: &Name) {
        lock(&self.0).remove(name);
    }

    /// Ends a fetch that nobody follows any more; whether it is so.
    fn abandon(&self, name: &Name, leader: &watch::Sender<Flight>) -> bool {
        let mut flights = lock(&self.0);
        let alone = leader.receiver_count() <= 1; // that of later followers
        if alone {
            flights.remove(name);
        }
        alone
    }
}

impl Peers {
    /// The bytes of an object of a peer, or a range of them.
    pub(super) async fn get(
        self: &Arc<Self>,
        name: Name,
        range: Option<Range<u64>>,
    ) -> Result<Reply> {
        if range.is_some() {
            return self.get_apart(&name, range).await;
        }
        if name.generation != 0 {
            return self.get_generation(&name).await;
        }
        if self.cache.is_on() {
            // Which one is current is for the peer to say; its bytes may be here.
            let request = Request::Stat { name: name.clone(), hash: false };
            let reply = self.ask(&name.endpoint, &request, Body::empty()).await?;
            let Answer::Stat(stat) = reply.answer else { return Ok(reply) };
            let current = Name { generation: stat.generation, ..name.clone() };
            let reply = self.get_generation(&current).await?;
            if !matches!(reply.answer, Answer::Absent) {
                return Ok(reply);
            } // else it was replaced just now
        }
        self.get_apart(&name, None).await
    }

    /// For one caller alone, in constant memory.
    async fn get_apart(self: &Arc<Self>, name: &Name, range: Option<Range<u64>>) -> Result<Reply> {
        match self.begin(name, range).await? {
            Begun::Other(reply) => Ok(reply),
            Begun::Object(parts) => Ok(self.stream(*parts)),
        }
    }

    fn stream(&self, mut parts: Parts) -> Reply {
        let (sender, body) = Body::coming(parts.len());
        let answer = object(parts.stat);
        self.tasks.spawn(async move {
            while let Some(part) = parts.next().await {
                let failed = part.is_err();
                for piece in unfolded(part) {
                    if sender.send(piece).await.is_err() {
                        return; // nobody wants the rest
                    }
                }
                if failed {
                    return;
                }
            }
        });
        Reply { answer, body }
    }

    /// One generation of an object: a copy of it, or together with all who want it now.
    async fn get_generation(self: &Arc<Self>, name: &Name) -> Result<Reply> {
        loop {
            if let Some((stat, pieces)) = self.cache.get(name) {
                return Ok(Reply { answer: object(stat), body: Body::held(pieces) });
            }
            match self.flights.join(name) {
                Part::Leader(leader) => return self.lead(name, leader).await,
                Part::Follower(mut flight) => {
                    let began = flight.wait_for(|f| f.head.is_some() || f.end.is_some()).await;
                    let Ok((head, end)) = began.map(|f| (f.head.clone(), f.end.clone())) else {
                        continue; // who led was gone before it began
                    };
                    return match (head, end) {
                        (Some(Head::Object(stat)), _) => Ok(self.follow(stat, flight)),
                        (Some(Head::Absent), _) => Ok(Answer::Absent.into()),
                        (Some(Head::Apart), _) => self.get_apart(name, None).await,
                        (None, Some(Err(fault))) => Err(fault.into_error("ask a peer")),
                        (None, _) => continue,
                    };
                }
            }
        }
    }

    async fn lead(self: &Arc<Self>, name: &Name, leader: watch::Sender<Flight>) -> Result<Reply> {
        let begun = self.begin(name, None).await;
        let ended = |head: Option<Head>, end: Option<Result<(), Fault>>| {
            self.flights.leave(name);
            leader.send_modify(|flight| (flight.head, flight.end) = (head, end));
        };
        let mut parts = match begun {
            Err(error) => {
                ended(None, Some(Err(Fault::of(&error))));
                return Err(error);
            }
            Ok(Begun::Other(reply)) => {
                match &reply.answer {
                    Answer::Failed(fault) => ended(None, Some(Err(fault.clone()))),
                    Answer::Absent => ended(Some(Head::Absent), None),
                    _ => ended(Some(Head::Apart), None),
                }
                return Ok(reply);
            }
            Ok(Begun::Object(parts)) => *parts,
        };
        let stat = parts.stat;
        parts.distrust = self.cache.takes(stat.size);
        let units = u32::try_from(stat.size.div_ceil(UNIT)).ok();
        let room =
            units.and_then(|units| Arc::clone(&self.room).try_acquire_many_owned(units).ok());
        let Some(room) = room else {
            ended(Some(Head::Apart), None);
            return Ok(self.stream(parts));
        };
        let flight = leader.subscribe();
        leader.send_modify(|flight| {
            flight.head = Some(Head::Object(stat));
            flight.room = Some(room);
        });
        if stat.size <= PART {
            self.fill(parts, leader).await; // it is here already, or nearly
        } else {
            let peers = Arc::clone(self);
            self.tasks.spawn(async move { peers.fill(parts, leader).await });
        }
        Ok(self.follow(stat, flight))
    }

    /// Fetches, for all who follow.
    async fn fill(&self, mut parts: Parts, leader: watch::Sender<Flight>) {
        let mut end = Ok(());
        while let Some(part) = parts.next().await {
            match part {
                Ok(pieces) => leader.send_modify(|flight| flight.pieces.extend(pieces)),
                Err(error) => {
                    end = Err(Fault::of(&error));
                    break;
                }
            }
            if !parts.distrust && self.flights.abandon(parts.name(), &leader) {
                return;
            }
        }
        if end.is_ok() && parts.distrust {
            let pieces = leader.borrow().pieces.clone();
            self.cache.put(parts.name(), parts.stat, pieces);
        }
        self.flights.leave(parts.name());
        leader.send_modify(|flight| flight.end = Some(end));
    }

    /// Passes on what was fetched, and what still comes.
    fn follow(&self, stat: Stat, mut flight: watch::Receiver<Flight>) -> Reply {
        let answer = object(stat);
        {
            let now = flight.borrow();
            if matches!(now.end, Some(Ok(()))) {
                return Reply { answer, body: Body::held(now.pieces.clone()) };
            }
        }
        let (sender, body) = Body::coming(stat.size);
        self.tasks.spawn(async move {
            let mut at = 0;
            loop {
                let more = flight.wait_for(|f| f.pieces.len() > at || f.end.is_some()).await;
                let Ok((pieces, end)) = more.map(|flight| {
                    let pieces: Vec<Bytes> = flight.pieces.range(at..).cloned().collect();
                    (pieces, flight.end.clone())
                }) else {
                    return; // the reader is told that it ends too early
                };
                at += pieces.len();
                for piece in pieces {
                    if sender.send(Ok(piece)).await.is_err() {
                        return; // nobody wants the rest
                    }
                }
                match end {
                    None => {}
                    Some(Ok(())) => return,
                    Some(Err(fault)) => {
                        let error = fault.into_error("get object of a peer");
                        let _ = sender.send(Err(error)).await; // as above
                        return;
                    }
                }
            }
        });
        Reply { answer, body }
    }
}

fn object(stat: Stat) -> Answer {
    Answer::Object { stat, shared: None }
}

fn unfolded(part: Result<VecDeque<Bytes>>) -> Vec<Result<Bytes>> {
    match part {
        Ok(pieces) => pieces.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}
