//! The connectors against what they promise.

mod migrations;
