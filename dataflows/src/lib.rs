//! The timely and differential computation: one file per relation, and the worker loop.
