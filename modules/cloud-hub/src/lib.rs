//! Sessions of edge nodes, the certificate authority and enrolment.
