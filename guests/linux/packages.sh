# Debian packages, from where this host's apt gets them, with the signatures that this host's apt trusts.
# Sourced by `make`. apt works on directories of its own here: nothing on the host is changed, no rights are
# needed, and what the host has installed makes no difference.
# shellcheck shell=bash

apt_dir=$cache/apt archives=$cache/apt/cache/archives
apt_options=(
    -o Dir::State="$apt_dir/state" -o Dir::State::status="$apt_dir/status"
    -o Dir::Cache="$apt_dir/cache" -o Dir::Etc::preferences="$apt_dir/preferences"
    -o Dir::Etc::preferencesparts="$apt_dir/none" -o Dir::Log="$apt_dir/log"
    -o APT::Architecture=amd64 -o APT::Architectures::=amd64
    -o APT::Install-Recommends=0 -o APT::Sandbox::User= -o Acquire::Languages=none
    -o Acquire::Retries=3 -o Debug::NoLocking=1
)

# apt TOOL ARGS…: apt-get or apt-cache, as described above.
apt() {
    local tool=$1
    shift
    "$tool" -qq "${apt_options[@]}" "$@"
}

# refresh: fetches the lists of packages.
refresh() {
    mkdir -p "$apt_dir"/{state/lists/partial,cache/archives/partial,none,log}
    : >"$apt_dir/status"
    # Only Debian's own packages, whatever else this host uses.
    printf 'Package: *\nPin: release o=Debian\nPin-Priority: 500\n\nPackage: *\nPin: release *\nPin-Priority: -1\n' \
        >"$apt_dir/preferences"
    apt apt-get update 2>"$scratch/why" ||
        fail "the lists of packages cannot be fetched, see to the network and to apt's sources: $(last_line "$scratch/why")"
}

last_line() { grep -v '^$' "$1" | tail -n 1; }

# candidate PACKAGE: the version that would be installed.
candidate() { apt apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p'; }

# closure PACKAGE…: the names of the files of these packages and of all that they depend on.
closure() {
    apt apt-get install --simulate "$@" 2>"$scratch/why" |
        sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*\[\([^]]*\)\]).*/\1_\2_\3.deb/p' | sed 's/:/%3a/g' | sort
}

# fetch PACKAGE…: downloads these packages and all that they depend on. apt checks what comes.
fetch() {
    apt apt-get install --yes --download-only "$@" >/dev/null 2>"$scratch/why" ||
        fail "packages cannot be fetched, see to the network: $(last_line "$scratch/why")"
}

# fetch_alone PACKAGE: downloads one package, and prints the name of its file.
fetch_alone() {
    local file
    file=$(closure "$1" | grep "^${1}_")
    if [ ! -s "$archives/$file" ]; then
        (cd "$archives" && apt apt-get download "$1") >&2 2>"$scratch/why" ||
            fail "the package $1 cannot be fetched, see to the network: $(last_line "$scratch/why")"
    fi
    echo "$file"
}

# find_packages: downloads all that the guest is made of. Sets kernel_package, kernel_file and base_files,
# with_files.
find_packages() {
    local name
    refresh
    for name in "$image" redis-server busybox-static cpio "${with[@]}"; do
        [ -n "$(candidate "$name")" ] || fail "Debian's packages, as this host's apt sees them, have no '$name'"
    done
    # The package of this name holds nothing: it depends on the newest kernel.
    kernel_package=$(apt apt-cache depends "$image" | sed -n 's/^  Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$kernel_package" ] || fail "the package $image depends on no kernel"
    kernel_file=$(fetch_alone "$kernel_package")
    busybox_file=$(fetch_alone busybox-static)
    cpio_file=$(fetch_alone cpio)
    base_files=$(closure redis-server) || fail "redis-server cannot be had: $(last_line "$scratch/why")"
    fetch redis-server
    with_files=''
    if [ ${#with[@]} -gt 0 ]; then
        with_files=$(closure "${with[@]}") || fail "these packages cannot be had together: ${with[*]}: $(last_line "$scratch/why")"
        fetch "${with[@]}"
    fi
}

# unpack FILE DIR: the files of a package, below DIR; their names are noted. Packages of any age agree on
# where /bin is.
unpack() {
    local top
    mkdir -p "$2" "$scratch/lists"
    for top in bin sbin lib lib64; do
        mkdir -p "$2/usr/$top"
        [ -L "$2/$top" ] || ln -s "usr/$top" "$2/$top"
    done
    dpkg-deb --fsys-tarfile "$archives/$1" |
        tar -xv -C "$2" --keep-directory-symlink --no-same-owner --no-same-permissions |
        sed 's|.*/||' >"$scratch/lists/$1"
}

# list_versions: what the guest was made of, one package a line, with the sum of its file.
list_versions() {
    local file
    for file in $(printf '%s\n' "$kernel_file" "$busybox_file" $used_files $with_files | sort -u); do
        echo "package $(dpkg-deb -f "$archives/$file" Package) $(dpkg-deb -f "$archives/$file" Version) $(sha256sum <"$archives/$file" | cut -d' ' -f1)"
    done
}
