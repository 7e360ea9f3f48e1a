#!/usr/bin/perl
# Plays a client or a backend, step by step, for the exercises of life.md.
#
# usage: talk.pl client PORT STEP...       prints what it receives
#        talk.pl backend SOCKET STEP...    prints its process group when it listens; repeats the
#            steps for each connection
# hello      sends the bytes of hello.hex
# send=TEXT  sends TEXT
# fill=N     sends N zero bytes
# take=N     reads N bytes
# read       reads to the end of the stream
# count      reads to the end, and prints only how many bytes came
# end        ends its stream: shutdown(2)
# sleep=N    waits N seconds
# After the last step it closes.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;

$SIG{CHLD} = $SIG{PIPE} = 'IGNORE';
$| = 1;

sub hello {
	my $name = $0 =~ s{[^/]*$}{hello.hex}r;
	open my $file, '<', $name or die "$name: $!\n";
	return pack 'H*', join '', map { /^#/ ? () : /[0-9a-f]+/g } <$file>;
}

# Reads up to SIZE bytes, or to the end if there is no SIZE.
sub take {
	my ($socket, $size) = @_;
	my $taken = '';
	while (!defined $size || length $taken < $size) {
		my $wanted = defined $size ? $size - length $taken : 65536;
		last if !sysread $socket, $taken, $wanted, length $taken;
	}
	return $taken;
}

sub put {
	my ($socket, $bytes) = @_;
	my $sent = 0;
	while ($sent < length $bytes) {
		$sent += syswrite($socket, $bytes, length($bytes) - $sent, $sent) // die "send: $!\n";
	}
}

sub talk {
	my $socket = shift;
	my %steps = (
		hello => sub { put($socket, hello()) },
		send => sub { put($socket, $_[0]) },
		fill => sub { put($socket, "\0" x $_[0]) },
		take => sub { print take($socket, $_[0]) },
		read => sub { print take($socket), "\n" },
		count => sub { printf "%d bytes\n", length take($socket) },
		end => sub { shutdown $socket, 1 },
		sleep => sub { sleep $_[0] },
	);
	for my $step (@_) {
		my ($verb, $object) = split /=/, $step, 2;
		($steps{$verb} // die "talk.pl: $step: no such step\n")->($object);
	}
}

sub listen_at {
	my ($name) = @_;
	unlink $name;
	my $listener = IO::Socket::UNIX->new(Local => $name, Listen => 1000) or die "$name: $!\n";
	my $process = fork // die "fork: $!\n";
	if ($process) {
		setpgrp $process, 0;
		print "$process\n";
		exit;
	}
	open STDOUT, '>', '/dev/null';
	return $listener;
}

my ($side, $where, @steps) = @ARGV;
if (($side // '') eq 'client' && @steps) {
	talk(IO::Socket::INET->new("127.0.0.1:$where") // die("port $where: $@\n"), @steps);
} elsif (($side // '') eq 'backend' && @steps) {
	my $listener = listen_at($where);
	while (my $socket = $listener->accept) {
		next if fork;
		talk($socket, @steps);
		exit;
	}
} else {
	die "usage: talk.pl client PORT STEP... | backend SOCKET STEP...\n";
}
