"""The filters, a file each."""
