//! The question-and-answer protocol of zen.
