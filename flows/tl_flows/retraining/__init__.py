"""Scheduled retraining: new data in, a challenger, and a promotion only where the gate says so."""
