//! Makes one machine match the desired state.
