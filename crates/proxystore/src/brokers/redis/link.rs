//! One connection, whose answers need not be waited for.
//!
//! That of the Redis client hides its socket, so that one could neither look for answers without
//! waiting nor end a wait.

use std::io::{self, Read, Write};
use std::sync::Arc;

use redis::{ErrorKind as Kind, RedisError, RedisResult};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::answer::{Answer, Input};
use super::fault::is_passing;
use super::server::Server;
use super::socket::{Limit, Socket};
use crate::connectors::redis::place::Node;
use crate::connectors::redis::request::Request;

/// After an error it is to be dropped.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    input: Input,
    /// What the server calls it; `None` when it does not say.
    pub(super) id: Option<i64>,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Link {
    pub(super) fn open(server: &Server, limit: Limit<'_>) -> RedisResult<Self> {
        let node = &server.settings.place.nodes[0];
        let socket = Socket::connect(node, limit)?;
        let stream = match (&server.tls, node) {
            (Some(tls), Node::Tcp { host, .. }) => {
                let name = ServerName::try_from(host.clone())?;
                let session = ClientConnection::new(Arc::clone(tls), name)?;
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
            _ => Stream::Plain(socket),
        };
        let mut link = Self { stream, input: Input::default(), id: None };
        link.introduce(server, limit)?;
        Ok(link)
    }

    fn introduce(&mut self, server: &Server, limit: Limit<'_>) -> RedisResult<()> {
        let settings = &server.settings;
        if let Some(password) = &settings.password {
            let password = password.0.as_bytes();
            let answer = match &settings.username {
                Some(username) => self.call(&[b"AUTH", username.as_bytes(), password], limit)?,
                None => self.call(&[b"AUTH", password], limit)?,
            };
            if let Answer::Failure(error) = answer {
                let is_refused = !is_passing(&error, &settings.place);
                let refused = (Kind::AuthenticationFailed, "the server refuses the credentials");
                return Err(if is_refused { refused.into() } else { error });
            }
        }
        if settings.place.database != 0 {
            self.call(&[b"SELECT", settings.place.database.to_string().as_bytes()], limit)?.ok()?;
        }
        match self.call(&[b"CLIENT", b"ID"], limit)? {
            Answer::Int(id) => self.id = Some(id),
            // Not everybody may ask; but errors of those who may do nothing are worth telling.
            Answer::Failure(error) if error.code() != Some("NOPERM") => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub(super) fn call(&mut self, command: &[&[u8]], limit: Limit<'_>) -> RedisResult<Answer> {
        self.send(&packed(command), limit)?;
        self.receive(limit)?.ok_or_else(too_late)
    }

    pub(super) fn send(&mut self, bytes: &[u8], limit: Limit<'_>) -> RedisResult<()> {
        self.socket().set_limit(limit);
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes)?,
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush())?,
        }
        Ok(())
    }

    /// The next answer; `None` when the time is up, or its end is closed.
    pub(super) fn receive(&mut self, limit: Limit<'_>) -> RedisResult<Option<Answer>> {
        self.socket().set_limit(limit);
        loop {
            let missing = match self.input.next()? {
                Ok(answer) => return Ok(Some(answer)),
                Err(missing) => missing,
            };
            let stream: &mut dyn Read = match &mut self.stream {
                Stream::Plain(stream) => stream,
                Stream::Tls(stream) => stream,
            };
            match self.input.fill(stream, missing) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                outcome => outcome?,
            }
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match &mut self.stream {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_mut(),
        }
    }
}

/// A command as it travels.
pub(super) fn packed(command: &[&[u8]]) -> Vec<u8> {
    let mut request = Request::default();
    request.command(command);
    request.into_bytes()
}

/// The error of a server that is silent for too long.
pub(super) fn too_late() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}
