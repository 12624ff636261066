"""`halfcore predict`: scores a file with a bundle, without a server."""
