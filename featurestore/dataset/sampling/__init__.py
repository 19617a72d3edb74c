"""Which sentences make up the batches of an epoch: by length, within windows, shared out among processes."""
