//! Recovery over generated logs. The model is the list of batches as they were written, each with
//! the state behind it: what comes back must be the state behind the last batch of the longest
//! whole prefix.

mod cases;
mod random;
mod written;
