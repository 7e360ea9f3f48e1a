#!/usr/bin/perl
# The literal blocks of *.md, docs/*.md and the manual pages: commands, and contents of files. Tests
# run them unchanged, with readme.sh and manual.sh, which call this script. A block that begins with
# ```c FILE is a listing, which must be in that file unchanged.
#
# usage: blocks.pl show FILE HEADING [N]    prints the Nth block below the heading, or the first
#        blocks.pl list                     file, heading and N of each, with tabs between them
#        blocks.pl check [DIRECTORY]        checks that a test runs each block of the documents in
#            DIRECTORY, or tests/scripts/blocks_not_run says why not, and that each listing is the
#            source; prints what is wrong
use strict;
use warnings;

sub read_lines {
	my ($name) = @_;
	open my $file, '<', $name or die "$name: $!\n";
	chomp(my @lines = <$file>);
	return @lines;
}

# The file that a block is a listing of; and all blocks, which keeps their addresses unique.
my %listed_from;
my @kept;

# Each kind of document returns a list of [HEADING, N, LINE...].
sub blocks_of_markdown {
	my ($heading, $number, $fenced, @blocks) = ('', 0);
	my $block;
	for my $line (@_) {
		if ($line =~ /^```(?:c (\S+))?/) {
			$fenced = !$fenced;
			push @blocks, $block = [$heading, ++$number] if $fenced;
			$listed_from{$block} = $1 if defined $1;
			undef $block if !$fenced;
		} elsif ($fenced) {
			push @$block, $line;
		} elsif ($line =~ /^#+ /) {
			($heading, $number, $block) = ($line, 0, undef);
		} elsif ($line =~ /^ {4}(.*)/) {
			push @blocks, $block = [$heading, ++$number] if !$block;
			push @$block, $1;
		} elsif ($line =~ /^\s*$/) {
			push @$block, '' if $block;
		} else {
			undef $block;
		}
	}
	for my $found (@blocks) {
		pop @$found while $found->[-1] eq '';
	}
	return @blocks;
}

# Undoes what mdoc writes differently, and removes prompts.
sub plain {
	my ($line) = @_;
	$line =~ s/\\\(dq/"/g;
	$line =~ s/\\\(:u/ü/g;
	$line =~ s/^[#\$] //;
	return $line;
}

sub blocks_of_manual {
	my ($heading, $number, $inside, @blocks) = ('', 0);
	for my $line (@_) {
		if ($line =~ /^\.S[hs] /) {
			($heading, $number) = ($line, 0);
		} elsif ($line =~ /^\.Dl (.*)/) {
			push @blocks, [$heading, ++$number, plain($1)];
		} elsif ($line =~ /^\.Bd -literal/) {
			push @blocks, [$heading, ++$number];
			$inside = 1;
		} elsif ($line =~ /^\.Ed/) {
			$inside = 0;
		} elsif ($inside) {
			push @{$blocks[-1]}, plain($line);
		}
	}
	return @blocks;
}

sub blocks {
	my ($name) = @_;
	my @lines = read_lines($name);
	my @blocks = $name =~ /\.md$/ ? blocks_of_markdown(@lines) : blocks_of_manual(@lines);
	push @kept, @blocks;
	return @blocks;
}

sub show {
	my ($name, $heading, $number) = @_;
	for my $block (blocks($name)) {
		my ($its_heading, $its_number, @lines) = @$block;
		next if $its_heading ne $heading || $its_number != $number;
		print "$_\n" for @lines;
		exit;
	}
	die "$name: no block $number below $heading\n";
}

# How tests refer to a block that they run; after the command come a manual's name, the heading in
# quotes, and the number. `same` compares a manual's block with one that is run.
my $command = qr{(?:\breadme(?:\.sh)?|\bmanual(?:\.sh)?|\bedit \S+|\bput \S+|\bsame)};
my $mention = qr{$command (?:(?<page>\S+\.[1-8]) )?(?<quote>['"])(?<heading>(?:\#+|\.S[hs])\ [^'"]+)\k<quote>(?:\ (?<number>[0-9]+))?};

# The blocks that tests run, as "PAGE HEADING N", without a page for those in documents, where each
# heading is unique.
sub run_by_tests {
	my %run;
	for my $test (@_) {
		my $text = join "\n", grep { !/^\s*#/ } read_lines($test);
		$text =~ s/\\\n\s*/ /g;
		while ($text =~ /$mention/g) {
			$run{join ' ', $+{page} // (), $+{heading}, $+{number} // 1} = 1;
		}
	}
	return \%run;
}

# Stanzas of three lines: the file and the heading, the block's first line, the reason.
sub not_run {
	my ($name) = @_;
	my %reasons;
	local $/ = '';
	open my $file, '<', $name or die "$name: $!\n";
	while (my $stanza = <$file>) {
		next if $stanza =~ /^#[^#]/;
		my @lines = grep { $_ ne '' } split /\n/, $stanza;
		die "$name: not three lines:\n$stanza" if @lines != 3;
		s/^\t// for @lines;
		$reasons{"$lines[0]\n$lines[1]"} = $lines[2];
	}
	return \%reasons;
}

my $here = $0 =~ s{/[^/]*$}{}r;
my $top = "$here/../..";

# Whether FILE has these lines, one after another.
sub stand_in {
	my ($file, @lines) = @_;
	return -e $file && index(join("\n", '', read_lines($file), ''), join "\n", '', @lines, '') >= 0;
}

sub documents {
	my ($directory) = @_;
	return glob "$directory/*.md $directory/docs/*.md $directory/man/*.[1-8]";
}

sub list {
	for my $name (documents($top)) {
		print join("\t", $name, @$_[0, 1]), "\n" for blocks($name);
	}
}

sub check {
	my ($directory) = @_;
	my @runners = grep { !/\/blocks\.bats$/ } map { glob "$top/tests/*/*.$_" } qw(bats bash sh);
	my $run = run_by_tests(@runners);
	my $reasons = not_run("$here/blocks_not_run");
	my ($wrong, %used) = (0);
	my $say = sub { print @_, "\n"; $wrong++ };
	for my $name (documents($directory)) {
		my $file = substr $name, length($directory) + 1;
		my $page = $file =~ m{^man/(.*)} ? "$1 " : '';
		for my $block (blocks($name)) {
			my ($heading, $number, $first, @others) = @$block;
			if (my $source = $listed_from{$block}) {
				$say->("$file: $heading: block $number is not in $source: $first")
				    if !stand_in("$directory/$source", $first, @others);
				next;
			}
			my $listed = "$file $heading\n$first";
			my $is_run = $run->{"$page$heading $number"};
			$used{$listed} = 1;
			$say->("$file: $heading: block $number is run by no test, and not listed: $first")
			    if !$is_run && !$reasons->{$listed};
			$say->("$file: $heading: block $number is run by a test, and listed too: $first")
			    if $is_run && $reasons->{$listed};
		}
	}
	for my $listed (sort keys %$reasons) {
		$say->('listed, and not there: ', $listed =~ s/\n/: /r) if !$used{$listed};
	}
	exit($wrong > 0);
}

my ($verb, @arguments) = @ARGV;
if (($verb // '') eq 'show' && @arguments >= 2) {
	show(@arguments[0, 1], $arguments[2] // 1);
} elsif (($verb // '') eq 'check') {
	check($arguments[0] // $top);
} elsif (($verb // '') eq 'list' && !@arguments) {
	list();
} else {
	die "usage: blocks.pl show FILE HEADING [N] | list | check [DIRECTORY]\n";
}
