//! The one SQLite file of a node: writer, readers and migrations.
