//! sock_diag
