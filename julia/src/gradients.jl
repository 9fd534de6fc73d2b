"""
    Gradients()

Each backward pass leaves the derivatives with respect to the arrays of a network in `found`, by these arrays; what is not
there is zero. They are Zygote's own: sites and the rules of this package play no part. One serves any number of passes
through the same network.
"""
mutable struct Gradients <: Observer
    const found::IdDict{Any,Any}
    const own::IdDict{Any,Tuple{Vector{Leaf},Bool}} # of each layer, and whether it `sums_up`
    entered::Bool # whether this pass has come to parameters
end
Gradients() = Gradients(IdDict{Any,Any}(), IdDict{Any,Tuple{Vector{Leaf},Bool}}(), false)

function single_pullback(layer, x, see::Gradients)
    own, forgetful = get!(() -> (separate_uses(layer), sums_up(layer)), see.own, layer)
    isempty(own) && return single_pullback(layer, x, Inputs())
    # No parameters come before the first ones: nobody needs the derivative with respect to what goes into these.
    first = !see.entered
    see.entered = true
    through() = first ? Zygote.pullback(m -> m(x), layer) : Zygote.pullback(applied, layer, x)
    y, pullback = through()
    # Zygote adds up the gradients of what is mutable (BatchNorm, a user's struct around layers) over the calls of one pullback.
    function layer_back(d)
        gradient, pulled... = (forgetful ? last(through()) : pullback)(d)
        foreach(leaf -> add!(see, value(leaf), gradient_of(leaf, gradient)), own)
        return isempty(pulled) ? nothing : only(pulled)
    end
    return y, layer_back
end

applied(layer, x) = layer(x)

"whether there is anything in a layer of which Zygote adds up the gradients"
sums_up(@nospecialize(layer)) = any(accumulates, parts!(Any[], Base.IdSet{Any}(), layer))

"note a derivative with respect to an array, which may be used several times"
add!(see::Gradients, array, g) = see.found[array] = haskey(see.found, array) ? see.found[array] .+ g : g
add!(see::Gradients, array, ::Nothing) = nothing

"one backward pass: the derivatives with respect to each of `own`, summed over their uses; `nothing` stands for zero"
function gradients!(see::Gradients, network_back, d, own::Vector{Parameter})
    empty!(see.found)
    network_back(d)
    see.entered = false
    return Any[summed(see.found, p) for p in own]
end

function summed(found::IdDict, p::Parameter)
    g = get(found, value(p.leaf), nothing)
    for (array, positions) in p.others
        other = get(found, array, nothing)
        other === nothing && continue
        whole = zeros(eltype(other), size(value(p.leaf)))
        view(vec(whole), positions) .+= vec(other)
        g = g === nothing ? whole : g .+ whole
    end
    return g
end

"a derivative with respect to the parameter `p` as an array like it"
filled(g::Array, ::AbstractArray) = g
filled(g, p::AbstractArray) = copyto!(similar(p, size(p)), g)
filled(::Nothing, p::AbstractArray) = fill!(similar(p, size(p)), 0)
