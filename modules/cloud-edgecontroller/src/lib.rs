//! Nodes, pods and what pods need: down to the edge, and their status up.
