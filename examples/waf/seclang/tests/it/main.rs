//! The rules as a host has them: through the interface.

mod crs;
