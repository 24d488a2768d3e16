//! Runs pods: CRI, volumes, status.
