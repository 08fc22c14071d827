//! An in-process cluster for anybody's tests.
