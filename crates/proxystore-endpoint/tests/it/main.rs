//! Endpoints from outside: real daemons, and their clients.

mod connector;
mod site;
