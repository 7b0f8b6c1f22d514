//! What an author reads who declares what cannot cross: each message points at the line, and says what to do instead.
//!
//! The expected texts are beside the sources; `TRYBUILD=overwrite` writes them anew. They are those of one compiler, the
//! oldest that the workspace takes.

#[test]
fn what_cannot_cross_is_refused_where_it_is_written() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
