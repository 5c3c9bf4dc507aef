"""Pictures x masks and operators x methods x seeds: one plan, one store, measured from the stored samples."""
