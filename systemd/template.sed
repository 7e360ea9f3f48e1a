# Makes the template units sniproxy@.socket, .service and .timer from the plain ones. An instance is
# named after the address that it listens on.
s/sniproxy\.\(socket\|service\|timer\)/sniproxy@%i.\1/g
s/^Description=.*/& (%I)/
s/^ListenStream=.*/ListenStream=%I/
