# Layers made of layers. A residual block is Flux's `SkipConnection`, or `Parallel` where its shortcut has layers.

function children(@nospecialize(chain::Chain))
    layers = Any[chain.layers...]
    return Any[(string(index - 1), layers[index], g -> item(part(g, :layers), index)) for index in eachindex(layers)]
end

function children(s::SkipConnection)
    check_connection(s.connection, "SkipConnection")
    return inside(s.layers, "", g -> part(g, :layers))
end

function children(p::Parallel)
    check_connection(p.connection, "Parallel")
    two = length(p.layers) == 2
    two || throw(ArgumentError("a Parallel with $(length(p.layers)) branches; allowed: Parallel(+, main, shortcut)"))
    main = inside(p.layers[1], "", g -> item(part(g, :layers), 1))
    side = inside(p.layers[2], "shortcut.", g -> item(part(g, :layers), 2))
    return [main; side]
end

"refuse a connection with parameters of its own, which have no name"
function check_connection(@nospecialize(connection), where)
    nfields(connection) == 0 || isempty(Flux.trainables(connection)) || throw(ArgumentError("a $where whose connection, a \
        $(nameof(typeof(connection))), has parameters; allowed: a function, as +"))
end

"the children of a chain, or of a single layer, that is itself a part of a layer"
inside(@nospecialize(layer), prefix, pick) = Any[(prefix * "0", layer, pick)]
function inside(@nospecialize(chain::Chain), prefix, pick)
    return Any[(prefix * name, layer, inner ∘ pick) for (name, layer, inner) in children(chain)]
end

observed(s::SkipConnection, x, see) = s.connection(observed(s.layers, x, see), x)

function observed(p::Parallel, x, see)
    main = observed(p.layers[1], x, see)
    return p.connection(main, observed(p.layers[2], x, see))
end

function observed_pullback(s::SkipConnection, x, see::Observer)
    main, main_back = whole_pullback(s.layers, x, see)
    y, connection_back = connection_pullback(s.connection, main, x)
    return y, d -> added(main_back, identity, connection_back(d))
end

function observed_pullback(p::Parallel, x, see::Observer)
    main, main_back = whole_pullback(p.layers[1], x, see)
    side, side_back = whole_pullback(p.layers[2], x, see)
    y, connection_back = connection_pullback(p.connection, main, side)
    return y, d -> added(main_back, side_back, connection_back(d))
end

by_layer(s::SkipConnection, x) = s.connection(by_layer(s.layers, x), x)
by_layer(p::Parallel, x) = p.connection(by_layer(p.layers[1], x), by_layer(p.layers[2], x))

"two branches joined, and the pullback to both"
connection_pullback(connection, a, b) = Zygote.pullback(connection, a, b)
connection_pullback(::typeof(+), a::AbstractArray, b::AbstractArray) = a + b, d -> (d, d)

"the sum of the derivatives that come back by two branches, either of which may be `nothing`"
function added(first_back, second_back, (d, e))
    a, b = d === nothing ? nothing : first_back(d), e === nothing ? nothing : second_back(e)
    return a === nothing ? b : b === nothing ? a : a .+ b
end

function build_layer(::Val{:residual}, settings, param)
    main = build_chain(settings["layers"], param)
    isempty(settings["shortcut"]) && return SkipConnection(main, +)
    return Parallel(+, main, build_chain(settings["shortcut"], name -> param("shortcut.$name")))
end
