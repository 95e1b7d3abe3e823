//! The terminal, borrowed: given back as it was, whatever happens.
