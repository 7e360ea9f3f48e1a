#!/usr/bin/perl
# Compares the DIAGNOSTICS of a manual page with the program: each text in the sources must be in
# the head of an item, and each head must consist of texts of the sources. Prints differences, and
# then exits with status 1.
#
# usage: manuals.pl PAGE SOURCE...
use strict;
use warnings;

# Texts that are no messages: bytes for a backend, the name of an unknown alert, the form of an
# unprintable byte, options, a path, a system's name of a limit, a signature, the mode of a
# stream, and the characters of a name.
my %silent = map { $_ => 1 } 'PROXY %s %s %s %u %u', 'PROXY TCP%c %45s %45s %5s %5s', 'PROXY TCP%c %s %s %lu %lu', 'TCP4', 'TCP6', 'unknown alert', '\\\\x%02x',
    '--help', '--version', '/proc/self/fd', 'PROXY', 'PROXY UNKNOWN', '\\0QUIT', 'kern.maxfilesperproc', 'w',
    're', 'acme-tls/1', '%31s', '/proc/self/cgroup', '/sys/fs/cgroup/%s%s/%s', 'memory.max', 'memory.limit_in_bytes', 'pids.max', 'threads',
    '-_.abcdefghijklmnopqrstuvwxyz0123456789',
    'stdin is the listening TCP socket, as from systemd, inetd or s6the working directory is the hosts directory: NAME/tls-socket';

my ($page, @sources) = @ARGV;
my $differences = 0;

sub read_file {
	my ($name) = @_;
	open my $file, '<', $name or die "$name: $!\n";
	local $/;
	return scalar <$file>;
}

sub differ {
	print @_, "\n";
	$differences++;
}

# The string literals of a source; adjacent ones are joined.
sub literals {
	my ($text) = @_;
	$text =~ s/^\s*#\s*include.*$//mg;
	my (@literals, $adjoins);
	while ($text =~ m{\G(?:
	    (?<gap>\s+) |
	    /\*.*?\*/ | //[^\n]* |
	    '(?:[^'\\]|\\.)+' |
	    "(?<literal>(?:[^"\\]|\\.)*)" |
	    . )}gsx) {
		if (defined $+{literal}) {
			push @literals, '' if !$adjoins;
			$literals[-1] .= $+{literal};
			$adjoins = 1;
		} elsif (!defined $+{gap}) {
			$adjoins = 0;
		}
	}
	return @literals;
}

# The literal as it is shown, or '' if it has no letters.
sub seen {
	my ($literal) = @_;
	$literal =~ s/\\[nr]//g;
	$literal =~ s/^\s+|:?\s*$//g;
	(my $words = $literal) =~ s/%[-.*0-9]*(?:ll|l|z)?[a-z]//g;
	return $words =~ /[A-Za-z]/ ? $literal : '';
}

# A pattern for a literal; what is formatted into it matches anything.
sub pattern {
	my ($literal) = @_;
	return join '.+', map { quotemeta } split /%[-.*0-9]*(?:ll|l|z)?[a-z]/, $literal, -1;
}

# The heads of the items in DIAGNOSTICS, and the values in ENVIRONMENT.
sub heads {
	my ($text) = @_;
	my ($section, @heads, @settings) = ('');
	$text =~ s/\\\n//g; # a backslash continues a line
	for my $line (split /\n/, $text) {
		if ($line =~ /^\.Sh (.*)/) {
			$section = $1;
		} elsif ($section eq 'DIAGNOSTICS' && $line =~ /^\.It (.*)/) {
			my $head = $1;
			$head =~ s/(?:^| )Ar (\S+)/ <$1>/g;
			$head =~ s/(?:^| )(?:Li|No)(?= )//g;
			$head =~ s/ :(?= |$)/:/g;
			$head =~ s/^\s+//;
			push @heads, $head;
		} elsif ($section eq 'ENVIRONMENT' && $line =~ /^\.It Ev (\S+)(.*)/) {
			push @settings, $1, grep { !/^(?:Ns|=|Cm)$/ } split ' ', $2;
		}
	}
	return (\@heads, \@settings);
}

my ($heads, $settings) = heads(read_file($page));
my %settings = map { $_ => 1 } @$settings;
my %texts = map { $_ => 1 } grep { $_ ne '' } map { seen($_) } map { literals(read_file($_)) } @sources;
die "no texts, or no heads\n" if !%texts || !@$heads;

for my $text (sort keys %texts) {
	next if $silent{$text} || $settings{$text};
	next if $text =~ /\w=(?:%|$)/; # logfmt, which is shown as an example
	my $pattern = pattern($text);
	# The states of evicted connections, and the kinds of lines that are left out, are parts of
	# words and lines.
	differ("not in the manual: $text")
	    if !grep { /(?:^|[ :]|^evicted-)$pattern(?:[:;]| left out$|$)/ } @$heads;
}

my @parts = map { pattern($_) } map { split /: / } keys %texts;
for my $head (@$heads) {
	for my $part (split /: /, $head) {
		next if $part =~ /^<\w+>$/ || ($part =~ /^evicted-(\w+)$/ && $texts{$1});
		# A part may be contained in another text.
		differ("not in the program: $head")
		    if !grep { $part =~ /^$_$/ || $part =~ /^\S+ $_$/ } grep { !/^(?:\.\+)*$/ } @parts;
	}
}
exit($differences > 0);
