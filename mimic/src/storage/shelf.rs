//! A list that all who know it share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A list of things that come and go. Clones are the same list.
#[derive(Clone)]
pub struct Shelf<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Shelf<T> {
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is now.
    pub fn all(&self) -> Vec<T> {
        self.lock().clone()
    }

    /// The same list, for who is not to keep it.
    pub fn downgrade(&self) -> WeakShelf<T> {
        WeakShelf(Arc::downgrade(&self.0))
    }

    /// Puts one more on it.
    pub fn push(&self, value: T) {
        self.lock().push(value);
    }

    /// The first that fits.
    pub fn find(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        self.all().into_iter().find(|value| fits(value))
    }

    /// Takes those off that fit.
    pub fn remove(&self, fits: impl Fn(&T) -> bool) {
        self.lock().retain(|value| !fits(value));
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf(Arc::default())
    }
}

/// A [`Shelf`] that is not kept.
pub struct WeakShelf<T>(Weak<Mutex<Vec<T>>>);

impl<T: Clone> WeakShelf<T> {
    /// What there is now.
    pub fn all(&self) -> Vec<T> {
        let list = self.0.upgrade().map(Shelf);
        list.map(|list| list.all()).unwrap_or_default()
    }
}
