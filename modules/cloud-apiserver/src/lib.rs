//! The stand-alone API server: SQLite store, HTTPS, and the controllers a single box needs.
