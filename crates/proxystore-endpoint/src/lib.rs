//! The daemon of a site: keeps objects for the clients there, and exchanges them with its peers, the
//! daemons of other sites, also where both are behind NATs.
//!
//! - [`config`]: what an endpoint is told in its file; [`directory`]: the files it has; [`lock`]: who runs it.
//! - [`daemon`]: starts everything and stops it again.
//! - [`service`]: answers one request, whoever asks, here or by a peer.
//! - [`storage`]: objects in bounded memory, on disk when it is full, and over restarts on request.
//! - [`peer`]: other endpoints.
//! - [`server`]: clients, over a Unix socket and TCP.
//! - [`relay`]: where endpoints meet that cannot reach each other.
//! - [`status`]: what it tells of itself, to the command and over HTTP by [`web`]; [`latency`]: how long requests take.
//! - [`body`]: the bytes of an object on their way; [`frames`]: how they go over sockets and streams.

pub mod body;
pub mod config;
pub mod daemon;
pub mod directory;
pub mod frames;
pub mod latency;
pub mod lock;
mod memory;
pub mod peer;
pub mod relay;
pub mod server;
pub mod service;
pub mod status;
pub mod storage;
pub mod web;
