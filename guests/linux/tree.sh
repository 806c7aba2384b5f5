# The guest's root directory, and the archive of it that the kernel unpacks. Sourced by `make`.
# shellcheck shell=bash

# Modules for the devices of Lockstep's machine.
drivers=(virtio_mmio virtio_net virtio-rng)
# Programs of the closure of redis-server that the guest gets, with their libraries only.
programs=(usr/bin/redis-check-rdb usr/bin/redis-cli usr/bin/redis-benchmark)
# What a package has and a guest does not need.
ballast=(usr/share/{doc,man,info,locale,lintian,bash-completion,bug,doc-base,pixmaps,menu} usr/lib/systemd usr/lib/tmpfiles.d)

# unpack_tools: unpacks what is needed to make the tree: the kernel with its modules, busybox, cpio, redis.
# Sets kernel_dir, base_dir and release.
unpack_tools() {
    local file
    kernel_dir=$scratch/kernel base_dir=$scratch/base
    unpack "$kernel_file" "$kernel_dir"
    for file in $busybox_file $cpio_file $base_files; do unpack "$file" "$base_dir"; done
    release=$(basename "$(echo "$kernel_dir"/boot/vmlinuz-*)")
    release=${release#vmlinuz-}
}

# The dynamic linker, which a program names by a link in /lib64 to this path.
linker=lib/x86_64-linux-gnu/ld-linux-x86-64.so.2

# linker ARGS…: the guest's own dynamic linker, which can list libraries and start programs.
linker() { "$base_dir/$linker" --library-path "$base_dir/lib/x86_64-linux-gnu" "$@"; }

# libraries PROGRAM…: the libraries that programs of base_dir need, as paths below it.
libraries() {
    local path listed
    echo "$linker"
    for path in "$@"; do
        listed=$(linker --list "$base_dir/$path") && ! grep -q 'not found' <<<"$listed" ||
            fail "a library of $path is missing in Debian's packages"
        sed -n "s|.* => $base_dir/\(.*\) (0x.*|\1|p" <<<"$listed"
    done | sort -u
}

# put PATH: copies a file of base_dir into the tree, through links on the way.
put() {
    mkdir -p "$tree/$(dirname "$1")"
    cp -L "$base_dir/$1" "$tree/$1"
}

# origin PATH…: the files of the packages from which these files come.
origin() {
    local names
    names=$(for path in "$@"; do basename "$(readlink -f "$base_dir/$path")"; done)
    (cd "$scratch/lists" && grep -lxF "$names" -- *)
}

# needs MODULE: the paths of a module's file and of those that it depends on, in the order of loading.
needs() {
    local name=${1//-/_} path depends
    # A module's name and its file's name differ in - and _.
    path=$(cd "$kernel_dir/usr/lib/modules/$release" && find kernel -name "${name//_/[-_]}.ko*" | head -n 1)
    [ -n "$path" ] || fail "Linux $release has no module '$1'"
    depends=$(contents "$kernel_dir/usr/lib/modules/$release/$path" | tr '\0' '\n' | sed -n 's/^depends=//p' | head -n 1)
    for name in ${depends//,/ }; do needs "$name"; done
    echo "$path"
}

# contents FILE: of a module, which newer Debian has packed.
contents() {
    case $1 in
    *.xz) "$base_dir/bin/busybox" xzcat "$1" ;;
    *) cat "$1" ;;
    esac
}

# put_modules: the drivers and what the user wants, unpacked, and their list in the order of loading.
put_modules() {
    local path dir=usr/lib/modules/$release listed
    for path in "${drivers[@]}" "${modules[@]}"; do needs "$path"; done >"$scratch/modules"
    listed=$(awk '!seen[$0]++' "$scratch/modules")
    for path in $listed; do
        mkdir -p "$tree/$dir/$(dirname "$path")"
        contents "$kernel_dir/$dir/$path" >"$tree/$dir/${path%.xz}"
        echo "/$dir/${path%.xz}"
    done >"$tree/etc/modules"
}

# put_applets: a link to busybox for each of its programs that no package brings.
put_applets() {
    local path
    put bin/busybox
    "$base_dir/bin/busybox" --list-full | sort | while read -r path; do
        [ "$path" != linuxrc ] && [ ! -e "$tree/$path" ] && [ ! -L "$tree/$path" ] || continue
        ln -s /bin/busybox "$tree/$path"
    done
}

# lay DIR: lays a tree of files over the guest's.
lay() { tar -c -C "$1" . | tar -x -C "$tree" --keep-directory-symlink --no-same-owner; }

# make_tree: the whole root directory, in $tree.
make_tree() {
    local file path needed
    tree=$scratch/tree
    mkdir -p "$tree"/{dev,proc,sys,run,tmp,root,etc,var/log,usr/{bin,sbin,lib,lib64}}
    for path in bin sbin lib lib64; do ln -s "usr/$path" "$tree/$path"; done
    for file in $with_files; do unpack "$file" "$tree"; done
    for path in "${ballast[@]}"; do rm -rf "${tree:?}/$path"; done
    needed="${programs[*]} $(libraries "${programs[@]}")"
    for path in $needed; do [ -e "$tree/$path" ] || put "$path"; done
    ln -sf "/$linker" "$tree/usr/lib64/"
    ln -sf redis-check-rdb "$tree/usr/bin/redis-server"
    used_files=$(origin $needed)
    put_modules
    lay "$here/root"
    put_applets
    [ -z "$files" ] || lay "$files"
    find "$tree" \( -type f -o -type d \) -exec chmod u+rw,go-w,a+rX,a-s {} +
    chmod 1777 "$tree/tmp"
}

# pack_tree FILE: the archive of the tree. The same tree gives the same bytes: names are in order, and all
# owners, times and inode numbers are made up.
pack_tree() {
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . -mindepth 1 -print0 | sort -z |
        linker "$base_dir/bin/cpio" --null --create --format=newc --reproducible --owner=0:0 --quiet) >"$scratch/initrd.cpio"
    case $compress in
    none) mv "$scratch/initrd.cpio" "$1" ;;
    gzip) gzip -9 -n <"$scratch/initrd.cpio" >"$1" ;;
    esac
}
