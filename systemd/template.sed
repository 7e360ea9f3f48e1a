# Makes the template units sniproxy@.socket, .service and .timer of the plain ones: an instance
# is named by what it listens at.
s/sniproxy\.\(socket\|service\|timer\)/sniproxy@%i.\1/g
s/^Description=.*/& (%I)/
s/^ListenStream=.*/ListenStream=%I/
