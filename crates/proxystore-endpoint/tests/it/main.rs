//! Tests of the daemon and the relay as others see them.

mod relay;
