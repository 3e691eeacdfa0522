//! The connector of the library against real daemons.

mod conformance;
mod site;
