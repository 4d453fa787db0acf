//! SRQL, the catalog, live tables and the HTTP API.
